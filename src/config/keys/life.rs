//! The keys that say how workers are looked after: restart order, liveness, warming, and how many start at once.

use super::KeyDefault::{Required, Value, Words};
use super::{Key, Section, key};

/// The key at the top of the file.
pub(super) const MAX_WORKERS_STARTING: Key = key(
    "max_workers_starting",
    "1 to 1000",
    Words("twice the number of cores, at least 4"),
    "3",
    "Workers that may be starting at the same moment, over all services; more wait for their turn. Those of versions \
     that carry traffic go first, and one turn is kept for them where there is more than one. A worker that has done \
     nothing for 5 s (it sleeps, or hangs) gives its turn to the next.",
);

/// The service's own key.
pub(super) const RESTART: Key = key(
    "restart",
    "`start-first` or `stop-first`",
    Value("start-first"),
    "stop-first",
    "How one worker takes another's place, in a rolling restart and where one hangs. `start-first`: the new one is \
     ready before the old one leaves, so that there is one more for a while. `stop-first`: the old one has ended before \
     the new one is started; for workers that cannot exist twice. With a single worker that leaves a gap, in which \
     requests are answered 503, or wait where their route says `unavailable: wait`.",
);

/// The service's key for [`LIVE`].
pub(super) const LIVE_KEY: Key = key(
    "live",
    "`false`, or map",
    Words("with `ready: {http: PATH}` that path, else nothing"),
    "{http: /alive}",
    "How it is seen that a worker hangs.",
);

/// The service's key for [`WARM`].
pub(super) const WARM_KEY: Key = key(
    "warm",
    "path, or list of paths and maps",
    Words("none"),
    "[/, {path: /cart, times: 10}]",
    "What a new worker is asked after its readiness check passed and before it takes requests.",
);

/// `services.NAME.live:`.
pub(in crate::config) const LIVE: Section = Section {
    title: "Liveness",
    path: "services.NAME.live",
    doc: "A ready worker is asked again and again. When `failures` checks in a row fail, another one is started. One \
          that does not answer at all gets no more requests from then on; one that answers, but badly, goes on while \
          fewer than half of the workers would stay, and until the new one is ready. If it answers well before that, it \
          goes on as if nothing had been, and the new one is ended. Checks that switchman itself made late do not \
          count.",
    keys: &[
        key("http", "path", Words("that of `ready`"), "/alive", "A GET of this path must answer 2xx or 3xx."),
        key("tcp", "`true`", Words("none"), "true", "A connection to its port or socket must be accepted."),
        key(
            "command",
            "text, or list of texts",
            Words("none"),
            "./alive --port $PORT",
            "A command that must end with 0. It is run as the worker is: folder, user, environment.",
        ),
        key("interval", "duration, from 10ms", Value("5s"), "1s", "Time between two checks, more or less."),
        key("timeout", "duration, from 10ms", Value("5s"), "2s", "The longest one check may take."),
        key("failures", "1 to 100", Value("3"), "5", "So many checks in a row must fail."),
    ],
};

/// `services.NAME.warm:`, an item of it that is a map.
pub(in crate::config) const WARM: Section = Section {
    title: "Warming",
    path: "services.NAME.warm",
    doc: "An item of `warm` is a path, or a map with these keys. The requests are sent one after the other. One that \
          fails (no answer, or 5xx) is written to the log, and the next one is sent: a worker that passed its readiness \
          check is not held back for it. What has not been sent when `ready.deadline` is over is left out.",
    keys: &[
        key("path", "path", Required, "/cart?full=1", "What a GET asks for."),
        key("header", "map of texts", Value("{}"), "{host: app.example.com}", "Headers to send with it."),
        key("times", "1 to 1000", Value("1"), "10", "How often it is sent."),
    ],
};
