//! A document whose tree is there while it is in use.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::load::{Limits, load};
use crate::source::Source;
use crate::tree::Document;

/// A document and its text, of which the tree can be made again.
///
/// A tree takes ten times the memory of its text. It is needed to make a value of it, and after that
/// only by who asks for a place: of most documents nobody ever does.
#[derive(Debug)]
pub struct Reread {
    source: Arc<Source>,
    /// What the text was parsed within; `None` if the text holds more than this document.
    limits: Option<Limits>,
    tree: Mutex<Option<Arc<Document>>>,
}

// === impl Reread ===

impl Reread {
    /// Holds a document of a text of several, which is never forgotten.
    pub fn kept(source: Arc<Source>, document: Arc<Document>) -> Self {
        Self {
            source,
            limits: None,
            tree: Mutex::new(Some(document)),
        }
    }

    /// Holds the only document of a text that nothing is wrong with.
    pub(crate) fn new(source: Arc<Source>, document: Document, limits: &Limits) -> Self {
        Self {
            source,
            limits: Some(limits.clone()),
            tree: Mutex::new(Some(Arc::new(document))),
        }
    }

    /// Returns the text that places are in.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Returns the document, and keeps its tree until [`Self::forget`] is called.
    pub fn document(&self) -> Arc<Document> {
        let mut tree = self.tree.lock();
        let document = tree.get_or_insert_with(|| {
            let limits = self.limits.clone().unwrap_or_default();
            let (mut documents, ..) = load(&self.source, &limits);
            Arc::new(documents.pop().expect("a text is parsed alike each time"))
        });
        Arc::clone(document)
    }

    /// Gives the tree up, if it can be made again.
    pub fn forget(&self) {
        if self.limits.is_some() {
            *self.tree.lock() = None;
        }
    }
}
