//! What a source says, before it is put together with what other sources say.

use std::sync::Arc;

use tokio::sync::watch;

use super::kubernetes::{Subject, View};
use crate::intent::{Document, Parsed, Problem, assemble};

/// The documents of a source, and what is wrong with the others.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    /// The good ones.
    pub good: Arc<Vec<Document>>,
    /// What is wrong.
    pub problems: Arc<Vec<Problem>>,
}

impl Documents {
    pub(crate) fn new(good: Vec<Document>, problems: Vec<Problem>) -> Self {
        Self { good: Arc::new(good), problems: Arc::new(problems) }
    }

    /// The intent of these documents alone.
    #[must_use]
    pub fn assemble(self) -> Parsed {
        assemble(Arc::unwrap_or_clone(self.good), Arc::unwrap_or_clone(self.problems))
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.good, &other.good) && Arc::ptr_eq(&self.problems, &other.problems)
    }

    fn and(&self, other: &Self) -> Parsed {
        let good = self.good.iter().chain(other.good.iter()).cloned().collect();
        let problems = self.problems.iter().chain(other.problems.iter()).cloned().collect();
        assemble(good, problems)
    }
}

/// An intent, and the objects of the cluster that it was made of, as they were then: what is said about them in
/// their status is about that very version.
#[derive(Debug, Clone, Default)]
pub struct Combined {
    /// The intent.
    pub parsed: Arc<Parsed>,
    /// The objects that have a status to be written.
    pub subjects: Arc<Vec<Subject>>,
}

/// Follows a folder (if there is one) and a cluster, and puts together what they say. Of an object that both have,
/// the first by place is used, and the other is a problem. Ends when nobody listens any more.
pub fn combine(
    files: Option<watch::Receiver<Documents>>,
    mut cluster: watch::Receiver<View>,
) -> (watch::Receiver<Arc<Parsed>>, watch::Receiver<Combined>) {
    // A folder that is not there never changes.
    let (_closed, nothing) = watch::channel(Documents::default());
    let mut files = files.unwrap_or(nothing);
    let mut of_files = files.borrow_and_update().clone();
    let mut view = cluster.borrow_and_update().clone();
    let first = Arc::new(of_files.and(&view.documents));
    let (intents, intents_out) = watch::channel(Arc::clone(&first));
    let (all, all_out) =
        watch::channel(Combined { parsed: first, subjects: Arc::clone(&view.subjects) });
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Ok(()) = files.changed() => {}
                Ok(()) = cluster.changed() => {}
                () = intents.closed() => return,
                else => return,
            }
            let files_now = files.borrow_and_update().clone();
            let view_now = cluster.borrow_and_update().clone();
            let same = files_now.is_same(&of_files) && view_now.documents.is_same(&view.documents);
            (of_files, view) = (files_now, view_now);
            let parsed = if same {
                Arc::clone(&intents.borrow())
            } else {
                Arc::new(of_files.and(&view.documents))
            };
            all.send_replace(Combined {
                parsed: Arc::clone(&parsed),
                subjects: Arc::clone(&view.subjects),
            });
            if !same {
                intents.send_replace(parsed);
            }
        }
    });
    (intents_out, all_out)
}
