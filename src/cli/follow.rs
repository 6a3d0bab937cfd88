//! Follows an answer that never ends, line by line, over restarts of switchman.

use std::time::Duration;

use crate::admin::client::{Call, Client, ClientError};
use crate::cli::failure::Failure;
use crate::cli::output;

/// Between two tries to reach a switchman that is gone.
const TRY_EVERY: Duration = Duration::from_millis(300);

/// What is followed.
pub(super) trait Followed {
    /// Asks for what comes after the last line that was taken.
    fn call(&self) -> Call;

    /// Takes one line, with its end.
    fn line(&mut self, line: &[u8]) -> Result<(), Failure>;
}

/// Why one connection ended.
enum Ended {
    Client(ClientError),
    Taker(Failure),
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// Follows until Ctrl-C, or until the lines cannot be taken. Whether it can be asked at all is for the caller to try
/// first: here a switchman that does not answer is waited for.
pub(super) async fn follow(client: &Client, followed: &mut impl Followed) -> Result<(), Failure> {
    tokio::select! {
        failure = reconnecting(client, followed) => Err(failure),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn reconnecting(client: &Client, followed: &mut impl Followed) -> Failure {
    let mut waits = false;
    loop {
        // What stands after the last line's end when the connection breaks comes again, whole.
        let mut rest = Vec::new();
        let call = followed.call();
        let ended = client.follow(call, |bytes| {
            waits = false;
            rest.extend_from_slice(bytes);
            take_lines(&mut rest, followed).map_err(Ended::Taker)
        });
        let why = match ended.await {
            Err(Ended::Taker(failure)) => return failure,
            Err(Ended::Client(error)) => error.to_string(),
            Ok(()) => "switchman has ended".to_owned(),
        };
        if !waits {
            output::note(&format!("{why}; waiting for it"));
        }
        waits = true;
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Hands on the whole lines of `bytes`, and leaves what is after them.
fn take_lines(bytes: &mut Vec<u8>, followed: &mut impl Followed) -> Result<(), Failure> {
    let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
    let rest = bytes.split_off(last + 1);
    let lines = std::mem::replace(bytes, rest);
    lines.split_inclusive(|byte| *byte == b'\n').try_for_each(|line| followed.line(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lines(Vec<String>);

    impl Followed for Lines {
        fn call(&self) -> Call {
            Call::default()
        }

        fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
            self.0.push(String::from_utf8_lossy(line).into_owned());
            Ok(())
        }
    }

    #[test]
    fn lines_are_taken_whole() {
        let mut taken = Lines(Vec::new());
        let mut rest = Vec::new();
        for part in ["on", "e\n\ntw", "o", "\nrest"] {
            rest.extend_from_slice(part.as_bytes());
            take_lines(&mut rest, &mut taken).unwrap_or_else(|failure| panic!("{failure:?}"));
        }
        assert_eq!(taken.0, ["one\n", "\n", "two\n"]);
        assert_eq!(rest, b"rest");
    }
}
