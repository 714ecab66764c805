//! Data: what the readers take and refuse, and which batches a loader makes.

mod batches;
mod monitor;
mod readers;
mod report;
