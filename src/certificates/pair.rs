//! A certificate and its key, read from their files and held against each other.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys, client};
use webpki::{EndEntityCert, KeyUsage};
use xxhash_rust::xxh3::xxh3_64;

use super::{Spec, provider};

/// The longest file that is read, in bytes.
const SIZE_MAX: u64 = 1024 * 1024;

/// Why a pair cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", file.display())]
pub struct PairError {
    /// The file that is to blame.
    pub file: PathBuf,
    /// It is that of the key.
    pub is_key: bool,
    /// What is wrong: a lower-case sentence without final dot.
    pub reason: String,
    /// What to type next.
    pub hint: String,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    /// The hosts it is for, lower-case.
    pub(super) hosts: Vec<String>,
    /// What is likely not meant, though it works: sentences.
    pub(super) warnings: Vec<String>,
}

/// Both files as they are.
pub(super) struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    pub(super) fn read(spec: &Spec) -> Result<Self, PairError> {
        let read = |path: &Path, is_key| {
            read(path).map_err(|error| PairError {
                file: path.to_owned(),
                is_key,
                reason: format!("the file cannot be read: {error}"),
                hint: format!("look at it: ls -l {}", path.display()),
            })
        };
        Ok(Self { certificate: read(&spec.certificate, false)?, key: read(&spec.key, true)? })
    }

    /// Other contents have another one.
    pub(super) fn digest(&self) -> (u64, u64) {
        (xxh3_64(&self.certificate), xxh3_64(&self.key))
    }
}

impl Pair {
    /// Reads the pair that `spec` names.
    ///
    /// # Errors
    /// A file cannot be read or has no PEM of its kind, or the key is another certificate's.
    pub fn load(spec: &Spec) -> Result<Self, PairError> {
        Self::new(spec, &Files::read(spec)?)
    }

    pub(super) fn new(spec: &Spec, files: &Files) -> Result<Self, PairError> {
        let fail = |path: &Path, reason: String, hint: String| PairError {
            file: path.to_owned(),
            is_key: path == spec.key,
            reason,
            hint,
        };
        let (at, key_at) = (spec.certificate.display(), spec.key.display());
        let bad_certificate = |error: &dyn std::fmt::Display| {
            let hint = format!("see what it is: openssl x509 -noout -text -in {at}");
            fail(&spec.certificate, format!("it has no valid certificate: {error}"), hint)
        };
        let bad_key = |error: &dyn std::fmt::Display| {
            let hint = format!("see what it is: openssl pkey -noout -text -in {key_at}");
            fail(&spec.key, format!("it has no private key that can be used: {error}"), hint)
        };
        let chain = CertificateDer::pem_slice_iter(&files.certificate)
            .collect::<Result<Vec<_>, pem::Error>>()
            .map_err(|error| bad_certificate(&error))?;
        let Some(first) = chain.first() else {
            return Err(bad_certificate(&"there is no `BEGIN CERTIFICATE`"));
        };
        let hosts = match spec.hosts.as_slice() {
            [] => names(first).map_err(|error| bad_certificate(&error))?,
            hosts => hosts.to_vec(),
        };
        let warnings = warnings(spec, first);
        let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|error| match error {
            pem::Error::NoItemsFound => bad_key(&"there is no unencrypted `BEGIN PRIVATE KEY`"),
            error => bad_key(&error),
        })?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let hint = format!(
                    "both must print the same: openssl x509 -noout -pubkey -in {at}; openssl pkey -pubout -in {key_at}"
                );
                fail(&spec.key, format!("it is not the key of the certificate in {at}"), hint)
            }
            Error::InvalidCertificate(error) => bad_certificate(&error),
            error => bad_key(&error),
        })?;
        Ok(Self { certified: Arc::new(certified), hosts, warnings })
    }
}

/// The host names that a certificate is for.
fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, webpki::Error> {
    let certificate = EndEntityCert::try_from(certificate)?;
    Ok(certificate.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

/// Whether a certificate is not valid at this time, in words.
fn out_of_date(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let text = |time: UnixTime| {
        let time = i64::try_from(time.as_secs()).ok().and_then(|s| Timestamp::from_second(s).ok());
        time.unwrap_or_default()
    };
    // Nobody is trusted here, so this always fails; what it looks at first is the time.
    let usage = KeyUsage::server_auth();
    match certificate.verify_for_usage(&[], &[], &[], UnixTime::now(), usage, None, None).err()? {
        webpki::Error::CertExpired { not_after, .. } => Some(format!("it has expired ({})", text(not_after))),
        webpki::Error::CertNotValidYet { not_before, .. } => {
            Some(format!("it is not valid yet ({})", text(not_before)))
        }
        _ => None,
    }
}

fn warnings(spec: &Spec, certificate: &CertificateDer<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let key = spec.key.display();
    if std::fs::metadata(&spec.key).is_ok_and(|key| key.permissions().mode() & 0o004 != 0) {
        warnings.push(format!("everybody on this machine can read the key {key}; hint: chmod 600 {key}"));
    }
    if let Some(reason) = out_of_date(certificate) {
        let at = spec.certificate.display();
        warnings.push(format!("clients will refuse the certificate {at}: {reason}; hint: renew it"));
    }
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return warnings };
    for host in &spec.hosts {
        // A wildcard is covered where some name below it is.
        let name = host.replacen('*', "any", 1);
        let covered =
            ServerName::try_from(name).is_ok_and(|name| client::verify_server_name(&parsed, &name).is_ok());
        if !covered {
            warnings.push(format!("the certificate {} is not for `{host}`", spec.certificate.display()));
        }
    }
    warnings
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a self-signed certificate for `hosts` and its key, readable by the owner alone.
    pub(in crate::certificates) fn write(folder: &Path, name: &str, hosts: &[&str]) -> Spec {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        let spec = Spec {
            hosts: Vec::new(),
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        std::fs::write(&spec.certificate, made.cert.pem()).unwrap();
        std::fs::write(&spec.key, made.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&spec.key, PermissionsExt::from_mode(0o600)).unwrap();
        spec
    }

    #[test]
    fn hosts_are_those_of_the_certificate_unless_they_are_said() {
        let folder = tempfile::tempdir().unwrap();
        let spec = write(folder.path(), "a", &["A.example", "*.b.example"]);
        let pair = Pair::load(&spec).unwrap();
        assert_eq!(
            (pair.hosts, pair.warnings),
            (vec!["a.example".to_owned(), "*.b.example".to_owned()], vec![])
        );

        let hosts = ["a.example", "x.b.example", "*.b.example", "c.example", "*.c.example"];
        let spec = Spec { hosts: hosts.map(str::to_owned).into(), ..spec };
        std::fs::set_permissions(&spec.key, PermissionsExt::from_mode(0o644)).unwrap();
        let pair = Pair::load(&spec).unwrap();
        assert_eq!(pair.hosts, hosts);
        assert_eq!(pair.warnings.len(), 3, "{:?}", pair.warnings);
        assert!(pair.warnings[0].contains("hint: chmod 600"), "{:?}", pair.warnings);
        assert!(pair.warnings[1].ends_with("is not for `c.example`"), "{:?}", pair.warnings);
    }

    #[test]
    fn a_certificate_that_is_out_of_date_is_warned_of_and_used() {
        let folder = tempfile::tempdir().unwrap();
        let spec = write(folder.path(), "a", &["a.example"]);
        let date = rcgen::date_time_ymd;
        for (from, to, expected) in [
            (date(2001, 1, 1), date(2002, 3, 4), Some("it has expired (2002-03-04T00:00:00Z)")),
            (date(4000, 1, 1), date(4001, 1, 1), Some("it is not valid yet (4000-01-01T00:00:00Z)")),
            (date(2001, 1, 1), date(4000, 1, 1), None),
        ] {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut made = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            (made.not_before, made.not_after) = (from, to);
            std::fs::write(&spec.certificate, made.self_signed(&key).unwrap().pem()).unwrap();
            std::fs::write(&spec.key, key.serialize_pem()).unwrap();
            let warnings = Pair::load(&spec).unwrap().warnings;
            assert_eq!(warnings.len(), usize::from(expected.is_some()), "{warnings:?}");
            assert!(warnings.iter().all(|warning| warning.contains(expected.unwrap())), "{warnings:?}");
        }
    }

    #[test]
    fn a_broken_pair_names_the_file_and_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (write(folder.path(), "a", &["a.example"]), write(folder.path(), "b", &["b.example"]));
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let text = std::fs::read_to_string(&a.certificate).unwrap();
        let none = folder.path().join("none");
        let with = |certificate: &Path, key: &Path| {
            let spec = Spec { hosts: vec![], certificate: certificate.to_owned(), key: key.to_owned() };
            Pair::load(&spec).unwrap_err()
        };
        for (error, is_key, part) in [
            (with(&none, &a.key), false, "No such file"),
            (with(&a.certificate, &none), true, "No such file"),
            (with(folder.path(), &a.key), false, "not a regular file"),
            (with(&file("empty", ""), &a.key), false, "no `BEGIN CERTIFICATE`"),
            (with(&file("cut", &text[..text.len() / 2]), &a.key), false, "no valid certificate"),
            (with(&a.key, &a.key), false, "no `BEGIN CERTIFICATE`"),
            (with(&a.certificate, &a.certificate), true, "unencrypted"),
            (with(&a.certificate, &b.key), true, "not the key of the certificate"),
        ] {
            assert!(error.reason.contains(part), "{error}");
            assert!(!error.hint.is_empty());
            if part != "no `BEGIN CERTIFICATE`" {
                assert_eq!(error.is_key, is_key, "{error}");
            }
        }
    }
}
