//! One task a service: puts document and aliases together, publishes them, makes changes one at a time.
//!
//! A change is answered once it is stored *and* in force here, so that whoever asks next sees it.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::RulesAt;
use crate::hint::Problem;
use crate::rules::last_good::{self, LastGood};
use crate::rules::offer::{Document, Offer, Text};
use crate::rules::publisher::{Aliases, Published, Publisher};
use crate::rules::source::etcd::{self, Contents, Keys, View};
use crate::rules::source::file::aliases::AliasFiles;
use crate::rules::source::file::document::{DocumentFile, refuse_empty};
use crate::rules::source::history::{self, Entry};
use crate::rules::source::{Change, ChangeError, Request, SourceError, SourceSpec, Who};
use crate::version::ServiceName;

/// Where aliases, routes with a key each, and maybe the document are.
#[derive(Debug)]
enum Store {
    Files(AliasFiles),
    Etcd(etcd::Store),
}

/// A change that etcd has been asked for.
struct Asked {
    answer: oneshot::Receiver<Result<Arc<View>, ChangeError>>,
    reply: oneshot::Sender<Result<Aliases, ChangeError>>,
}

/// The owner of one service's rules.
pub(crate) struct Service {
    name: ServiceName,
    /// `<state>/<service>`.
    folder: PathBuf,
    /// The document, where it is a file.
    file: Option<DocumentFile>,
    store: Store,
    publisher: Publisher,
    /// What was wrong with the copy on disk at the start; until it is written again.
    copy_problem: Option<Problem>,
    kept: Option<LastGood>,
}

impl Service {
    /// Reads what there is to read without waiting, and publishes it.
    pub(crate) fn open(
        spec: SourceSpec,
        cancel: CancellationToken,
    ) -> Result<(Self, watch::Receiver<Arc<Published>>), SourceError> {
        let folder = spec.state.join(spec.service.as_str());
        let (kept, copy_problem) = match last_good::read(&folder) {
            Ok(kept) => (kept, None),
            Err(problem) => (None, Some(*problem)),
        };
        let (file, key) = match spec.rules {
            RulesAt::File(path) => (Some(DocumentFile::open(path)), None),
            RulesAt::Etcd(key) => (None, Some(key)),
        };
        let origin: Arc<str> = match (&file, &key) {
            (Some(file), _) => file.document().origin.clone(),
            (None, key) => key.as_deref().unwrap_or_default().into(),
        };
        let store = match (spec.etcd, key) {
            (Some(cluster), key) => {
                let keys = Keys::new(cluster.prefix(), &spec.service, key);
                let known = kept.as_ref().map(|kept| contents(kept, &keys)).unwrap_or_default();
                let revision = kept.as_ref().map_or(0, |kept| kept.store_revision);
                Store::Etcd(etcd::spawn(cluster, keys, known, revision, cancel))
            }
            (None, None) => {
                let aliases = kept.as_ref().map(|kept| kept.aliases.clone()).unwrap_or_default();
                Store::Files(AliasFiles::open(folder.clone(), aliases))
            }
            (None, Some(key)) => return Err(SourceError::NoEtcd { service: spec.service, key }),
        };
        let (publisher, reader) =
            Publisher::new(spec.service.clone(), origin, kept.as_ref(), Timestamp::now());
        let mut service = Self { name: spec.service, folder, file, store, publisher, copy_problem, kept };
        service.offer();
        Ok((service, reader))
    }

    /// Follows both parts and makes changes until `cancel`.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>, cancel: CancellationToken) {
        let mut asked: Option<Asked> = None;
        loop {
            self.keep().await;
            tokio::select! {
                () = cancel.cancelled() => return,
                () = document_changed(self.file.as_mut()) => self.offer(),
                true = store_changed(&mut self.store) => self.offer(),
                answer = answered(asked.as_mut()), if asked.is_some() => {
                    self.offer();
                    if let Some(Asked { reply, .. }) = asked.take() {
                        let _ = reply.send(answer.map(|()| self.aliases()));
                    }
                }
                Some(request) = requests.recv(), if asked.is_none() => {
                    asked = self.change(request).await;
                }
                else => return,
            }
        }
    }

    fn aliases(&self) -> Aliases {
        Aliases::clone(&self.publisher.published().aliases)
    }

    /// Hands what both parts hold now to the publisher.
    fn offer(&mut self) {
        let mut offer =
            Offer { document: self.file.as_ref().map(|file| file.document().clone()), ..Offer::default() };
        match &mut self.store {
            Store::Files(files) => {
                offer.aliases = Some(files.aliases().clone());
                offer.routes = Some(Arc::default());
                offer.problems = files.problems().clone();
            }
            Store::Etcd(store) => {
                let view = store.view.borrow_and_update().clone();
                if let Some(contents) = &view.contents {
                    offer.aliases = Some(contents.aliases.clone());
                    offer.routes = Some(contents.routes.clone());
                    offer.document = offer.document.or_else(|| contents.document.clone());
                    offer.problems.0.extend(contents.problems.iter().cloned());
                }
                offer.problems.0.extend(view.problem.clone());
                offer.stale_since = view.stale_since;
            }
        }
        offer.problems.0.extend(self.copy_problem.clone());
        self.publisher.offer(offer, Timestamp::now());
    }

    /// Keeps what is in force on disk, where that is not what was kept last.
    async fn keep(&mut self) {
        let revision = match &self.store {
            Store::Files(_) => 0,
            Store::Etcd(store) => store.view.borrow().revision,
        };
        let good = self.publisher.last_good(revision);
        // The store's revision alone, which every change of any service moves, is not worth a write.
        let kept = match &self.kept {
            Some(kept) => LastGood { store_revision: revision, ..kept.clone() } == good,
            None => good.is_empty(),
        };
        if kept {
            return;
        }
        let (folder, copy) = (self.folder.clone(), good.clone());
        match tokio::task::spawn_blocking(move || last_good::write(&folder, &copy)).await {
            Ok(Ok(())) => self.copy_problem = None,
            Ok(Err(error)) => {
                let file = last_good::path(&self.folder);
                tracing::error!(service = %self.name, file = %file.display(), %error, "the last good rules could not be kept");
            }
            Err(_) => return, // the runtime is shutting down
        }
        // Also after a failure: it was told, and the next change tries again.
        self.kept = Some(good);
    }

    /// Makes a change, or asks etcd for it.
    async fn change(&mut self, request: Request) -> Option<Asked> {
        let Request { change, who, reply } = request;
        if let Change::Document { text, if_revision } = &change {
            let checked = refuse_empty(text)
                .and_then(|()| self.publisher.check(text).map(drop).map_err(ChangeError::Invalid));
            if let Err(error) = checked {
                let _ = reply.send(Err(error));
                return None;
            }
            if self.file.is_some() {
                let made = self.write_document(text, *if_revision, &who);
                self.offer();
                let _ = reply.send(made.map(|()| self.aliases()));
                return None;
            }
        }
        match &mut self.store {
            Store::Files(files) => {
                let made = files.apply(&change, &who);
                self.offer();
                let _ = reply.send(made.map(|()| self.aliases()));
                None
            }
            Store::Etcd(store) => {
                let (answered, answer) = oneshot::channel();
                let request = etcd::Request { change, who, reply: answered };
                // A task that is gone drops the request, which is the answer.
                let _ = store.requests.send(request).await;
                Some(Asked { answer, reply })
            }
        }
    }

    fn write_document(&mut self, text: &str, if_revision: Option<u64>, who: &Who) -> Result<(), ChangeError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let before = match &file.document().text {
            Text::Here(text) => Some(text.clone()),
            Text::Missing(_) | Text::Unreadable(_) => None,
        };
        file.write(text, if_revision)?;
        history::record(&self.folder, &Entry::document(who, Timestamp::now(), before.as_deref(), text));
        Ok(())
    }
}

/// What was in force when switchman ran last, as etcd should hold it.
fn contents(kept: &LastGood, keys: &Keys) -> Contents {
    let document = keys.document.as_deref().map(|key| Document {
        origin: Arc::from(key),
        revision: kept.revision,
        text: Text::Here(kept.document.clone()),
    });
    Contents { aliases: kept.aliases.clone(), routes: kept.routes.clone(), document, problems: Vec::new() }
}

async fn document_changed(file: Option<&mut DocumentFile>) {
    match file {
        Some(file) => file.changed().await,
        None => std::future::pending().await,
    }
}

/// False where there is nothing more to wait for.
async fn store_changed(store: &mut Store) -> bool {
    match store {
        Store::Files(_) => std::future::pending().await,
        Store::Etcd(store) => store.view.changed().await.is_ok(),
    }
}

async fn answered(asked: Option<&mut Asked>) -> Result<(), ChangeError> {
    let Some(asked) = asked else { return std::future::pending().await };
    match (&mut asked.answer).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(ChangeError::Unavailable("switchman is shutting down".to_owned())),
    }
}
