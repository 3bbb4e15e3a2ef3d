//! Host-to-device prefetch of micro-batches.

use super::data::MicroBatch;
use crate::error::Result;
use crate::model::activations::Inputs;
use crate::tensor::Storage;

/// A double buffer for micro-batches on the device: one slot receives the next micro-batch while operations read the
/// other.
pub struct Prefetcher<S: Storage> {
    slots: [Slot<S>; 2],
    /// Index of the slot that was used last.
    last: usize,
    /// The micro-batch that was prefetched into the other slot.
    prefetched: Option<MicroBatch>,
}

struct Slot<S: Storage> {
    inputs: Inputs<S>,
    /// Recorded after the last operation that reads the slot; `None` between [`Prefetcher::acquire`] and
    /// [`Prefetcher::release`].
    free: Option<S::Event>,
    /// Recorded after each of the copies to the slot.
    arrived: Vec<S::Event>,
}

impl<S: Storage> Prefetcher<S> {
    /// Allocates the buffers for micro-batches of (batch, time) tokens.
    ///
    /// # Errors
    /// If allocation fails.
    pub fn new(storage: &S, batch: usize, time: usize) -> Result<Self> {
        let [first, second] = Inputs::pair(storage, batch, time)?;
        // The first copy to a slot must wait for the operations that initialised its tensors.
        let slot =
            |inputs| -> Result<_> { Ok(Slot { inputs, free: Some(storage.record_event()?), arrived: Vec::new() }) };
        Ok(Prefetcher { slots: [slot(first)?, slot(second)?], last: 0, prefetched: None })
    }

    /// The tensors of a slot.
    pub fn inputs(&self, slot: usize) -> &Inputs<S> {
        &self.slots[slot].inputs
    }

    /// Starts the copy of the next micro-batch to the slot that is not in use.
    ///
    /// # Errors
    /// If the copy fails.
    pub fn prefetch(&mut self, storage: &S, batch: MicroBatch) -> Result<()> {
        self.prefetched = None;
        self.upload(storage, &batch)?;
        self.prefetched = Some(batch);
        Ok(())
    }

    fn upload(&mut self, storage: &S, MicroBatch { tokens, targets }: &MicroBatch) -> Result<()> {
        let Slot { inputs, free, arrived } = &mut self.slots[1 - self.last];
        // `free` is `None` if an error prevented the call of `release`. Any operation enqueued so far may read the slot.
        let free = match free {
            Some(free) => free,
            None => free.insert(storage.record_event()?),
        };
        *arrived = vec![
            storage.upload_async(free, tokens, inputs.tokens.view_mut())?,
            storage.upload_async(free, targets, inputs.targets.view_mut())?,
        ];
        Ok(())
    }

    /// Returns the slot that holds the micro-batch, which is copied now unless it was prefetched. Operations enqueued from
    /// now on wait for the copy; [`Prefetcher::release`] must follow the last one that reads the slot.
    ///
    /// # Errors
    /// If the copy fails.
    pub fn acquire(&mut self, storage: &S, batch: &MicroBatch) -> Result<usize> {
        if self.prefetched.take().is_none_or(|prefetched| prefetched != *batch) {
            self.upload(storage, batch)?;
        }
        self.last = 1 - self.last;
        self.slots[self.last].free = None;
        self.slots[self.last].arrived.iter().try_for_each(|event| storage.wait_event(event))?;
        Ok(self.last)
    }

    /// Allows new copies to the slot after all operations enqueued so far.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn release(&mut self, storage: &S, slot: usize) -> Result<()> {
        self.slots[slot].free = Some(storage.record_event()?);
        Ok(())
    }
}
