//! Synchronisation variables: addresses through which threads publish what they did.

use crate::ir::Scope;
use crate::race::clock::View;

/// What was published through one address.
#[derive(Default)]
pub struct SyncVariable {
    /// Published at device scope.
    device: View,
    /// (block, view) published at that block's scope, or wider.
    block: Option<(u32, View)>,
}

impl SyncVariable {
    /// What a load of a thread of `block` at `scope` observes: views, each with whether its publisher is known to be in
    /// the same block.
    pub fn observed(&self, block: u32, scope: Scope) -> Vec<(View, bool)> {
        let mut views = Vec::new();
        if let Some((publisher, view)) = &self.block
            && *publisher == block
        {
            views.push((view.clone(), true));
        }
        // A load of block scope observes only what its own block published, at whichever scope.
        if scope == Scope::Device {
            views.push((self.device.clone(), false));
        }
        views
    }

    /// A thread of `block` publishes a view at `scope`.
    pub fn publish(&mut self, block: u32, view: View, scope: Scope) {
        if scope == Scope::Device && self.device.includes(&view) {
            return;
        }
        if scope == Scope::Device {
            self.device.merge_others(&view);
        }
        match &mut self.block {
            Some((publisher, view_of_block)) if *publisher == block => view_of_block.merge_others(&view),
            other => *other = Some((block, view)),
        }
    }
}
