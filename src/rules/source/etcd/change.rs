//! One change, one transaction: guarded by the revisions it was decided on, with its history entry beside it.
//!
//! Where no answer comes, it is looked whether the transaction was made (its history entry is there), so that a
//! change is never made twice and never called lost while it stands.

use etcd_client::{Client, Compare, CompareOp, GetOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse};
use jiff::Timestamp;

use crate::etcd::{Failure, in_time};
use crate::rules::source::etcd::MESSAGE_BYTES_MAX;
use crate::rules::source::etcd::mirror::{Contents, Keys, Mirror, Seen, Value};
use crate::rules::source::etcd::write::{Write, decide};
use crate::rules::source::{Change, ChangeError, Who};

/// Tries before a change is given up: for history keys that others took and answers that were lost.
const TRIES_MAX: usize = 5;
/// History entries that are kept for each service.
const HISTORY_ENTRIES_MAX: i64 = 1000;
/// How many of the oldest go at once; etcd takes 128 operations in a transaction.
const HISTORY_PRUNED_AT_ONCE: i64 = 100;

/// Makes one change; the mirror holds it afterwards.
pub(crate) async fn apply(
    client: &Client,
    keys: &Keys,
    mirror: &mut Mirror,
    lost: Option<&Contents>,
    change: &Change,
    who: &Who,
) -> Result<(), ChangeError> {
    let now = Timestamp::now();
    let mut sent: Vec<(String, String)> = Vec::new();
    for _ in 0..TRIES_MAX {
        let Some(write) = decide(keys, mirror, lost, change, who, now)? else { return Ok(()) };
        sent.push(write.history.clone());
        match send(client, &write).await {
            Ok(Some(revision)) => {
                for (key, text) in write.set {
                    let value = text.map_or(Value::Removed, |text| Value::Text(text.into()));
                    mirror.event(Seen { key, revision, value });
                }
                return Ok(());
            }
            Ok(None) => {}
            Err(failure) => tracing::debug!(%failure, "no answer to a change, looking whether it was made"),
        }
        let entries: Vec<String> = sent.iter().map(|(key, _)| key.clone()).collect();
        let found = read(client, keys, &entries).await.map_err(|failure| unknown(&failure))?;
        mirror.replace(found.seen, found.revision);
        if sent.iter().any(|made| found.history.contains(made)) {
            return Ok(());
        }
        let moved = write.guards.iter().find(|(key, revision)| mirror.guard_of(key) != *revision);
        if let Some((key, expected)) = moved
            // Somebody else was first, which is all that was asked.
            && !matches!(change, Change::First { .. })
        {
            let found = match mirror.guard_of(key) {
                0 => mirror.revision, // removed, at a revision that is not known
                revision => revision,
            };
            return Err(ChangeError::Conflict {
                expected: expected.unsigned_abs(),
                found: found.unsigned_abs(),
            });
        }
    }
    Err(ChangeError::Unavailable(format!("etcd did not take the change in {TRIES_MAX} tries")))
}

/// What a person is told where etcd went away in the middle.
fn unknown(failure: &Failure) -> ChangeError {
    ChangeError::Unavailable(format!(
        "etcd went away meanwhile, and may or may not have made the change: {failure}"
    ))
}

/// What a person is told where etcd does not answer.
pub(crate) fn unavailable(failure: &Failure) -> ChangeError {
    ChangeError::Unavailable(format!("etcd cannot be reached: {failure}"))
}

/// Sends a transaction: its revision, or none where a guard failed.
async fn send(client: &Client, write: &Write) -> Result<Option<i64>, Failure> {
    let (entry_key, entry) = &write.history;
    let mut guards: Vec<Compare> = write
        .guards
        .iter()
        .map(|(key, revision)| Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision))
        .collect();
    guards.push(Compare::version(entry_key.as_str(), CompareOp::Equal, 0));
    let mut operations: Vec<TxnOp> = write
        .set
        .iter()
        .map(|(key, value)| match value {
            Some(value) => TxnOp::put(key.as_str(), value.as_str(), None),
            None => TxnOp::delete(key.as_str(), None),
        })
        .collect();
    operations.push(TxnOp::put(entry_key.as_str(), entry.as_str(), None));
    let answer = in_time(client.kv_client().txn(Txn::new().when(guards).and_then(operations))).await?;
    Ok(answer.succeeded().then(|| answer.header().map_or(0, |header| header.revision())))
}

/// Removes the oldest history entries, so that they never fill etcd.
pub(crate) async fn prune_history(client: &Client, keys: &Keys) -> Result<(), Failure> {
    let mut kv = client.kv_client();
    let all = || GetOptions::new().with_prefix();
    let count = in_time(kv.get(keys.history.as_str(), Some(all().with_count_only()))).await?.count();
    if count <= HISTORY_ENTRIES_MAX + HISTORY_PRUNED_AT_ONCE {
        return Ok(());
    }
    let oldest = all()
        .with_keys_only()
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_limit(HISTORY_PRUNED_AT_ONCE);
    let oldest = in_time(kv.get(keys.history.as_str(), Some(oldest))).await?;
    let removals: Vec<TxnOp> = oldest.kvs().iter().map(|kv| TxnOp::delete(kv.key(), None)).collect();
    in_time(kv.txn(Txn::new().and_then(removals))).await?;
    Ok(())
}

/// What one read found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) seen: Vec<Seen>,
    /// The revision of the whole store at which it was read.
    pub(crate) revision: i64,
    /// Those of the history entries asked for that are there.
    history: Vec<(String, String)>,
}

/// Reads all keys of a service at one revision, without its history.
pub(crate) async fn read(client: &Client, keys: &Keys, history: &[String]) -> Result<Found, Failure> {
    let under = |prefix: &str| TxnOp::get(prefix, Some(GetOptions::new().with_prefix()));
    let mut operations = vec![under(&keys.aliases), under(&keys.routes)];
    operations.extend(keys.document.as_deref().map(|key| TxnOp::get(key, None)));
    operations.extend(history.iter().map(|key| TxnOp::get(key.as_str(), None)));
    let mut kv = client.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX);
    let answer = in_time(kv.txn(Txn::new().and_then(operations))).await?;
    let mut found = Found {
        seen: Vec::new(),
        revision: answer.header().map_or(0, |header| header.revision()),
        history: Vec::new(),
    };
    for response in answer.op_responses() {
        let TxnOpResponse::Get(response) = response else { continue };
        for kv in response.kvs() {
            let key = String::from_utf8_lossy(kv.key()).into_owned();
            if key.starts_with(&keys.history) {
                found.history.push((key, String::from_utf8_lossy(kv.value()).into_owned()));
            } else {
                found.seen.push(Seen { key, revision: kv.mod_revision(), value: Value::from(kv.value()) });
            }
        }
    }
    Ok(found)
}
