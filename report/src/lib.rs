//! Results of measurements as one HTML page that needs nothing else: text, tables, charts as SVG within it.
//! In: a `Page` of sections with what was measured. Out: its text. On any thread. Never measures, reads or writes
//! anything, and never trusts a word that it is given: all of it is escaped.

mod chart;
mod page;

pub use chart::bars::{Bars, Span};
pub use chart::lines::{Across, Lines};
pub use page::{Page, Section, Table};
