//! The document that is being built.

use std::collections::HashMap;

use crate::mapping::OpenMapping;
use crate::source::offset;
use crate::tree::{Content, NodeData, NodeId};

/// The document that is being built.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) nodes: Vec<NodeData>,
    pub(super) sizes: Vec<Size>,
    pub(super) open: Vec<Open>,
    pub(super) anchors: HashMap<usize, NodeId>,
    pub(super) root: Option<NodeId>,
    /// What the aliases so far stand for.
    pub(super) expanded: u64,
    pub(super) broken: bool,
    pub(super) problems: usize,
    pub(super) warnings: usize,
}

/// What a node comes to when its aliases are followed.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) values: u64,
    pub(super) height: u32,
}

/// A collection whose end has not been seen.
pub(super) struct Open {
    pub(super) node: NodeId,
    pub(super) anchor: usize,
    pub(super) size: Size,
    pub(super) content: OpenContent,
}

pub(super) enum OpenContent {
    Sequence(Vec<NodeId>),
    Mapping(OpenMapping),
}

// === impl Builder ===

impl Builder {
    pub(super) fn push(&mut self, node: NodeData, size: Size) -> NodeId {
        let id = offset(self.nodes.len());
        self.nodes.push(node);
        self.sizes.push(size);
        id
    }

    pub(super) fn target(&self, id: NodeId) -> NodeId {
        match self.nodes[id as usize].content {
            Content::Alias(target) => target,
            _ => id,
        }
    }
}

// === impl Size ===

impl Size {
    pub(super) fn of_text(text: &str) -> Self {
        Self {
            values: 1 + (text.len() / 16) as u64,
            height: 0,
        }
    }
}
