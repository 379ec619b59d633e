//! What a source says, before it is put together with what other sources say.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::kubernetes::{Subject, View};
use crate::intent::{Assembly, Document, Parsed, Problem, Sheet, Sheets};

/// The documents of a source, and what is wrong with the others.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    /// By where they come from.
    pub sheets: Sheets,
}

impl Documents {
    /// The documents of something that is not a file.
    pub(crate) fn new(documents: Vec<Document>, problems: Vec<Problem>) -> Self {
        // The name of no file.
        let source = PathBuf::from("\0");
        let sheet = Arc::new(Sheet { documents, problems });
        Self { sheets: [(source, sheet)].into_iter().collect() }
    }

    /// The good ones.
    pub fn good(&self) -> impl Iterator<Item = &Document> {
        self.sheets.values().flat_map(|sheet| &sheet.documents)
    }

    /// What is wrong.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.sheets.values().flat_map(|sheet| &sheet.problems)
    }

    /// The intent of these documents alone.
    #[must_use]
    pub fn assemble(self) -> Parsed {
        Parsed::clone(Assembly::new(self.sheets).parsed())
    }

    /// These, and those of another source.
    fn and(&self, other: &Self) -> Sheets {
        let mut sheets = self.sheets.clone();
        for (source, sheet) in &other.sheets {
            sheets.insert(source.clone(), Arc::clone(sheet));
        }
        sheets
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
    let mut assembly = Assembly::new(of_files.and(&view.documents));
    let first = Arc::clone(assembly.parsed());
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
            let same = files_now.sheets == of_files.sheets
                && view_now.documents.sheets == view.documents.sheets;
            (of_files, view) = (files_now, view_now);
            if !same {
                assembly = assembly.update(of_files.and(&view.documents));
            }
            let parsed = Arc::clone(assembly.parsed());
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
