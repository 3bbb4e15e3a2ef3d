//! Micro-batches on their way to the device.

use super::trainer::MicroBatch;
use crate::error::Result;
use crate::model::activations::Inputs;
use crate::tensor::Storage;

/// Two places for a micro-batch on the device that take turns, so that one arrives while operations read the other.
pub struct Feed<S: Storage> {
    places: [Place<S>; 2],
    /// The place used last.
    last: usize,
    /// In the place that is not the last.
    staged: Option<MicroBatch>,
}

struct Place<S: Storage> {
    inputs: Inputs<S>,
    /// Behind the last operation that uses what was there; none from [`Feed::take`] to [`Feed::done`].
    free: Option<S::Event>,
    /// Behind the copies to it.
    arrived: Vec<S::Event>,
}

impl<S: Storage> Feed<S> {
    /// For micro-batches of (batch, time) tokens.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn new(storage: &S, batch: usize, time: usize) -> Result<Self> {
        let [first, second] = Inputs::pair(storage, batch, time)?;
        // Behind what made the tensors.
        let place =
            |inputs| -> Result<_> { Ok(Place { inputs, free: Some(storage.record_event()?), arrived: Vec::new() }) };
        Ok(Feed { places: [place(first)?, place(second)?], last: 0, staged: None })
    }

    /// What is in a place.
    pub fn inputs(&self, place: usize) -> &Inputs<S> {
        &self.places[place].inputs
    }

    /// Sends a micro-batch ahead of its turn, which is the next.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn stage(&mut self, storage: &S, batch: MicroBatch) -> Result<()> {
        self.staged = None;
        self.send(storage, &batch)?;
        self.staged = Some(batch);
        Ok(())
    }

    fn send(&mut self, storage: &S, MicroBatch { tokens, targets }: &MicroBatch) -> Result<()> {
        let Place { inputs, free, arrived } = &mut self.places[1 - self.last];
        // An error kept `done` from being called: everything queued up to now may use the place.
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

    /// The place that has the micro-batch, for operations that are queued from now on; [`Feed::done`] ends them.
    ///
    /// # Errors
    /// When it was not staged and cannot be copied.
    pub fn take(&mut self, storage: &S, batch: &MicroBatch) -> Result<usize> {
        if self.staged.take().is_none_or(|staged| staged != *batch) {
            self.send(storage, batch)?;
        }
        self.last = 1 - self.last;
        self.places[self.last].free = None;
        self.places[self.last].arrived.iter().try_for_each(|mark| storage.wait_event(mark))?;
        Ok(self.last)
    }

    /// The place may be filled anew after what was queued up to now.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn done(&mut self, storage: &S, place: usize) -> Result<()> {
        self.places[place].free = Some(storage.record_event()?);
        Ok(())
    }
}
