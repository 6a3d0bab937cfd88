//! The table that is printed at the end: what each fault did.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};

use super::ledger::Row;
use super::trouble::Fault;

/// What stands under "lost" and "ended" nobody can save: requests that must not be done twice, WebSockets and events,
/// whose own worker was killed, stood still or was told to stop.
pub(crate) fn of(rows: &BTreeMap<Fault, Row>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "fault",
        "times",
        "failed requests",
        "cut WebSockets",
        "requests lost",
        "streams ended",
        "longest stall",
    ]);
    for (fault, row) in rows {
        let Row { times, failed, cut, lost, ended, stall } = row;
        let counts = [times, failed, cut, lost, ended].map(usize::to_string);
        let stall = format!("{} ms", stall.as_millis());
        table.add_row([fault.words().to_owned()].into_iter().chain(counts).chain([stall]));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
