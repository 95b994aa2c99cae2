//! Variants that take turns, and what they took.

/// Something to measure: each call is one round and tells its figures.
pub(crate) struct Variant<'a, const N: usize> {
    name: String,
    run: Box<dyn FnMut() -> [f64; N] + 'a>,
}

impl<'a, const N: usize> Variant<'a, N> {
    pub(crate) fn new(name: impl Into<String>, run: impl FnMut() -> [f64; N] + 'a) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
        }
    }
}

/// The figures of all variants; the first variant is what the others are compared with.
pub(crate) struct Rounds<const N: usize>(Vec<Row<N>>);

#[derive(Clone)]
struct Row<const N: usize> {
    name: String,
    rounds: Vec<[f64; N]>,
}

impl<const N: usize> Rounds<N> {
    /// Runs all variants in each round, after one round that does not count.
    pub(crate) fn measure(rounds: usize, mut variants: Vec<Variant<'_, N>>) -> Self {
        let row = |variant: &Variant<'_, N>| Row {
            name: variant.name.clone(),
            rounds: Vec::new(),
        };
        let mut rows: Vec<_> = variants.iter().map(row).collect();
        for round in 0..=rounds {
            for turn in 0..rows.len() {
                // So that none has always the same one before it.
                let index = (round + turn) % rows.len();
                let figures = (variants[index].run)();
                if round > 0 {
                    rows[index].rounds.push(figures);
                }
            }
        }
        Self(rows)
    }

    /// What needs no repetition.
    pub(crate) fn once(mut variants: Vec<Variant<'_, N>>) -> Self {
        let run = |variant: &mut Variant<'_, N>| Row {
            name: variant.name.clone(),
            rounds: vec![(variant.run)()],
        };
        Self(variants.iter_mut().map(run).collect())
    }

    /// Some of the variants, compared with the first of these.
    pub(crate) fn only(&self, rows: &[usize]) -> Self {
        Self(rows.iter().map(|&row| self.0[row].clone()).collect())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|row| &*row.name)
    }

    /// A figure of a variant in all rounds.
    pub(crate) fn figures(&self, row: usize, figure: usize) -> impl Iterator<Item = f64> {
        self.0[row].rounds.iter().map(move |round| round[figure])
    }

    /// The same with that of the first variant in each round.
    pub(crate) fn pairs(&self, row: usize, figure: usize) -> impl Iterator<Item = (f64, f64)> {
        self.figures(row, figure).zip(self.figures(0, figure))
    }
}

/// The middle one; of an even number the higher of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
