//! Markdown tables, on the screen and in a file.

use std::{fmt::Write, fs, thread};

use super::rounds::{Rounds, median};

/// Where a run of all groups is written to.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md");

pub(crate) struct Report {
    text: String,
    redis_version: Option<String>,
}

/// What a column shows of the figures with this index.
pub(crate) struct Column {
    head: &'static str,
    figure: usize,
    shows: Shows,
    decimals: usize,
}

#[derive(Clone, Copy)]
enum Shows {
    Median,
    Max,
    Ratio,
    Difference,
}

impl Column {
    pub(crate) const fn median(head: &'static str, figure: usize, decimals: usize) -> Self {
        Self {
            head,
            figure,
            shows: Shows::Median,
            decimals,
        }
    }

    pub(crate) const fn max(head: &'static str, figure: usize, decimals: usize) -> Self {
        Self {
            shows: Shows::Max,
            ..Self::median(head, figure, decimals)
        }
    }

    /// The median of the ratios to the first variant.
    pub(crate) const fn ratio(head: &'static str, figure: usize) -> Self {
        Self {
            shows: Shows::Ratio,
            ..Self::median(head, figure, 2)
        }
    }

    /// The median of the differences to the first variant.
    pub(crate) const fn difference(head: &'static str, figure: usize, decimals: usize) -> Self {
        Self {
            shows: Shows::Difference,
            ..Self::median(head, figure, decimals)
        }
    }

    fn cell<const N: usize>(&self, rounds: &Rounds<N>, row: usize) -> String {
        let pairs = rounds.pairs(row, self.figure);
        let value = match self.shows {
            Shows::Median => median(pairs.map(|(own, _)| own)),
            Shows::Max => pairs.map(|(own, _)| own).fold(f64::MIN, f64::max),
            Shows::Ratio => median(pairs.map(|(own, first)| own / first)),
            Shows::Difference => median(pairs.map(|(own, first)| own - first)),
        };
        format!("{value:.*}", self.decimals)
    }
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            text: String::new(),
            redis_version: None,
        }
    }

    pub(crate) fn group(&mut self, title: &str, about: &str) {
        self.add(&format!("\n## {title}\n\n{about}\n"));
    }

    /// One row for each variant.
    pub(crate) fn table<const N: usize>(
        &mut self,
        title: &str,
        columns: &[Column],
        rounds: &Rounds<N>,
    ) {
        let heads: Vec<_> = columns.iter().map(|column| column.head).collect();
        let mut table = format!("\n| {title} | {} |\n|---|", heads.join(" | "));
        table.push_str(&"---:|".repeat(columns.len()));
        for (row, name) in rounds.names().enumerate() {
            let cells: Vec<_> = columns
                .iter()
                .map(|column| column.cell(rounds, row))
                .collect();
            write!(table, "\n| {name} | {} |", cells.join(" | ")).unwrap();
        }
        table.push('\n');
        self.add(&table);
    }

    pub(crate) fn redis_version(&mut self, version: String) {
        self.redis_version = Some(version);
    }

    pub(crate) fn save(&self) {
        let cores = thread::available_parallelism().unwrap();
        let redis = self
            .redis_version
            .as_deref()
            .expect("it is told by the group on Redis");
        let mysql = if cfg!(feature = "mysql") {
            ", mysql"
        } else {
            ""
        };
        let text = format!(
            "# Benchmarks\n\n\
             Written by `cargo bench -p benches`. Clients and servers shared a machine with {cores} cores; redis-server {redis}; \
             features axum, redis{mysql}.\n\n\
             Figures are medians over rounds in which the variants take turns. Quote the ratios, not the absolute \
             figures: they are medians of the ratios within each round, to the first row of a table.\n{}",
            self.text
        );
        fs::write(FILE, text).expect("cannot write the results");
        println!("\nwritten to {FILE}");
    }

    fn add(&mut self, text: &str) {
        print!("{text}");
        self.text.push_str(text);
    }
}
