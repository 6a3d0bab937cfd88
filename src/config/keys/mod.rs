//! Every key of the configuration, in one place: the readers allow exactly these, and `docs/configuration.md`
//! is made from them.
//!
//! Nothing can drift: a key that is read but not listed here is refused as unknown, and tests load every
//! example (it must change the configuration) and every default (it must not).

pub(super) mod bodies;
pub(super) mod front;
pub(super) mod http2;
pub(super) mod life;
pub(super) mod isolation;
mod launch;
pub(super) mod keep;
pub(super) mod limits;
mod settle;
pub(super) mod streams;

use bodies::{BODIES, COMPRESS};
use front::{CERTIFICATE, FRONT, TLS};
use limits::{BALANCE, LIMITS, QUEUE};

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What may stand after it, in words.
    pub takes: &'static str,
    /// What holds where it is left out.
    pub default: KeyDefault,
    /// A value as it could stand after it, in YAML; another one than the default.
    pub example: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// What holds where a key is left out.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeyDefault {
    /// It must be there.
    Required,
    /// This value, in YAML.
    Value(&'static str),
    /// What these words say.
    Words(&'static str),
}

/// The keys of one map.
#[derive(Debug)]
pub(super) struct Section {
    /// Its heading in the reference.
    pub title: &'static str,
    /// Where the map stands, as in `services.NAME.ready`.
    pub path: &'static str,
    /// What the map is about.
    pub doc: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [Key],
}

/// The names of all keys of some sections.
pub(super) fn names(sections: &[&Section]) -> Vec<&'static str> {
    sections.iter().flat_map(|section| section.keys).map(|key| key.name).collect()
}

/// All sections, in the order of the reference.
pub(super) const ALL: [&Section; 27] = [
    &FILE,
    &FRONT,
    &TLS,
    &CERTIFICATE,
    &ADMIN,
    &ETCD,
    &LIMITS,
    &http2::HTTP2,
    &SERVICE,
    &streams::DRAIN,
    &RULES,
    &BALANCE,
    &QUEUE,
    &BODIES,
    &COMPRESS,
    &keep::KEEP,
    &keep::HOOKS,
    &keep::HOOK,
    &RUN,
    &keep::WORKERS,
    &READY,
    &STOP,
    &life::LIVE,
    &life::WARM,
    &isolation::ISOLATION,
    &isolation::RLIMITS,
    &isolation::CGROUP,
];

const fn key(
    name: &'static str,
    takes: &'static str,
    default: KeyDefault,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, takes, default, example, doc }
}

use KeyDefault::{Required, Value, Words};

/// The file itself.
pub(super) const FILE: Section = Section {
    title: "Top of the file",
    path: "",
    doc: "What concerns all services.",
    keys: &[
        key(
            "listen",
            "address, or list of addresses",
            Value("127.0.0.1:7000"),
            r#"["0.0.0.0:7000", "[::]:7000"]"#,
            "The public addresses. `:7000` is every IPv4 address of the machine, `localhost:7000` is 127.0.0.1.",
        ),
        key("admin", "map", Words("as below"), "{listen: off}", "Where the admin API is reached."),
        key(
            "node",
            "name",
            Words("the host's name"),
            "host-a",
            "This machine's name in the fleet. Letters, digits, `.`, `_`, `-`.",
        ),
        key(
            "state",
            "path",
            Words(
                "`/var/lib/switchman` for root, else `$XDG_STATE_HOME/switchman` or `~/.local/state/switchman`",
            ),
            "state",
            "The folder for what survives a restart: aliases, last good rules, worker records, logs.",
        ),
        key(
            "etcd",
            "map",
            Words("none: rules and aliases live in files"),
            r#"{endpoints: ["http://127.0.0.1:2379"]}"#,
            "The shared store of many nodes.",
        ),
        key("threads", "1 to 1024", Words("the number of cores"), "3", "Data-plane threads."),
        key(
            "drain",
            "duration",
            Value("30s"),
            "1m",
            "How long running requests may take to end when switchman shuts down.",
        ),
        life::MAX_WORKERS_STARTING,
        bodies::ERRORS,
        key("limits", "map", Words("as below"), "{body: 10MiB}", "What bounds connections and requests."),
        key(
            "services",
            "map of services",
            Required,
            "{shop: {root: /srv/shop, run: ./shop}}",
            "The services by name. Names are made of letters, digits, `.`, `_`, `-`.",
        ),
    ],
};

/// `admin:`.
pub(super) const ADMIN: Section = Section {
    title: "The admin API",
    path: "admin",
    doc: "Where the admin API is reached.",
    keys: &[
        key(
            "listen",
            "address, or `off`",
            Value("127.0.0.1:7001"),
            "127.0.0.1:9001",
            "The TCP address. Beyond loopback, reading wants the token too.",
        ),
        key(
            "socket",
            "path",
            Words("`admin.sock` in `state`"),
            "/run/switchman/admin.sock",
            "The unix socket (mode 0600) that the command line uses. At most 107 bytes.",
        ),
    ],
};

/// `etcd:`.
pub(super) const ETCD: Section = Section {
    title: "etcd",
    path: "etcd",
    doc: "The etcd cluster that holds rules and aliases for all nodes. Left out, they live in files.",
    keys: &[
        key(
            "endpoints",
            "URL, or list of URLs",
            Required,
            r#"["https://10.0.0.1:2379", "https://10.0.0.2:2379"]"#,
            "The members, as `http://` or `https://` URLs.",
        ),
        key("prefix", "key", Value("/switchman"), "/fleet", "What every key begins with."),
        key("user", "name", Words("none"), "root", "The user, where the cluster wants one."),
        key(
            "password_file",
            "path",
            Words("none"),
            "secrets/etcd.password",
            "The file with that user's password; a line break at its end is not part of it.",
        ),
    ],
};

/// `services.NAME:`.
pub(super) const SERVICE: Section = Section {
    title: "A service",
    path: "services.NAME",
    doc: "One service. The keys of \"How a version runs\" stand here too.",
    keys: &[
        key("root", "path", Required, "/srv/shop", "The deploy root: each folder in it is a version."),
        key(
            "hosts",
            "host name, or list of host names",
            Words("every host"),
            "[app.example.com, www.example.com]",
            "The host names it answers, without port.",
        ),
        key(
            "versions",
            "regular expression",
            Value("^[0-9a-f]{7,64}$"),
            "^[0-9a-f]{40}$",
            "The folder names that are versions.",
        ),
        key(
            "settle",
            "duration",
            Value("1s"),
            "5s",
            "How long nothing below a folder may change before the upload counts as complete.",
        ),
        settle::COMPLETE_WHEN,
        settle::RESTART_ON_CHANGE,
        key(
            "promote",
            "`manual` or `auto`",
            Value("manual"),
            "auto",
            "`auto`: each new version becomes `current` once it is ready. `manual`: only the very first does.",
        ),
        key(
            "rules",
            "path, or map",
            Words("with etcd: `<prefix>/<service>/rules`; else `<service>/rules.yaml` in `state`"),
            "rules/app.yaml",
            "Where the rule document is. While there is none, everything goes to `current`.",
        ),
        streams::DRAIN_KEY,
        streams::UPGRADE,
        life::RESTART,
        life::LIVE_KEY,
        life::WARM_KEY,
    ],
};

/// `services.NAME.rules:`, where it is a map.
pub(super) const RULES: Section = Section {
    title: "Rules in etcd",
    path: "services.NAME.rules",
    doc: "Where the rule document of a service is in etcd, and not under the default key.",
    keys: &[key("etcd", "key", Required, "/fleet/app/rules", "The whole etcd key.")],
};

/// How a version runs: in a service, and in the version folder.
pub(super) const RUN: Section = Section {
    title: "How a version runs",
    path: "services.NAME",
    doc: "These keys may stand in a service, and in the `switchman.yaml` of a version's own \
          folder, which wins key by key. A `Procfile` with a `web:` line in the folder says `run` too.",
    keys: &[
        key(
            "run",
            "text, or list of texts",
            Words("none: each version folder must say it"),
            r#""node server.js --port $PORT""#,
            "The command of a worker. A text runs under `sh -c`, with `$1` = port (or socket) and `$2` = pidfile. \
             A list is executed as it is: nothing in it is expanded.",
        ),
        key(
            "env",
            "map of texts",
            Value("{}"),
            "{NODE_ENV: production}",
            "Environment variables added to switchman's own. Values are taken as they are written.",
        ),
        keep::WORKERS_KEY,
        key(
            "upstream",
            "`port`, `unix` or `inherit`",
            Value("port"),
            "unix",
            "What a worker listens on. `port`: a port on 127.0.0.1, in `PORT`. `unix`: a unix socket, whose path is in \
             `SOCKET`; it saves the kernel's TCP work. `PORT` is then not set, and `$1` is the path. `inherit`: \
             switchman opens the port itself and hands it over as systemd does: file descriptor 3, `LISTEN_FDS=1`, \
             `LISTEN_PID`, `LISTEN_FDNAMES=http`. Nobody else can take it, and it stays open while a worker that \
             ended is started again. Under a shell, begin the server with `exec`.",
        ),
        key(
            "protocol",
            "`http1` or `h2c`",
            Value("http1"),
            "h2c",
            "What a worker speaks. `h2c`: HTTP/2 without TLS, by prior knowledge, as gRPC servers do.",
        ),
        key("ready", "map", Value("{tcp: true}"), "{http: /healthz}", "How a worker shows that it is ready."),
        key("stop", "map", Words("as below"), "{grace: 10s}", "How a worker is stopped."),
    ],
};

/// `services.NAME.ready:`.
pub(super) const READY: Section = Section {
    title: "Readiness",
    path: "services.NAME.ready",
    doc: "How a worker shows that it is ready: one of `http`, `tcp`, `notify`, `command` and `after`.",
    keys: &[
        key("http", "path", Words("none"), "/healthz", "A GET of this path must answer 2xx or 3xx."),
        key("tcp", "`true`", Value("true"), "true", "A connection to its port or socket must be accepted."),
        launch::NOTIFY,
        launch::COMMAND,
        key("after", "duration", Words("none"), "5s", "It must have run for this long. Nothing is asked."),
        key("interval", "duration, from 10ms", Value("200ms"), "1s", "Time between two checks."),
        key("timeout", "duration, from 10ms", Value("5s"), "2s", "The longest one check may take."),
        key(
            "deadline",
            "duration, from 10ms",
            Value("1m"),
            "3m",
            "The longest a worker may take to become ready.",
        ),
    ],
};

/// `services.NAME.stop:`.
pub(super) const STOP: Section = Section {
    title: "Stopping",
    path: "services.NAME.stop",
    doc: "How a worker is stopped: it gets no new requests, its running ones end, then TERM, then KILL.",
    keys: &[
        key(
            "drain",
            "duration",
            Value("30s"),
            "2m",
            "The longest wait for its running requests before TERM.",
        ),
        key("grace", "duration", Value("30s"), "0s", "Time between TERM and KILL."),
    ],
};
