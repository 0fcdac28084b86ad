//! What must hold between the rows of one run.

use serde_json::{Value, json};

use crate::report::{About, Figure, bounds, median};

/// One row over another.
pub struct Ratio {
    /// Its name in the report.
    pub name: String,
    /// The median of the rounds, each for itself: what slows the machine down for a while slows both.
    pub value: f64,
    /// The least and the greatest of the rounds, each round for itself.
    pub spread: [f64; 2],
    /// Whether both rows count.
    pub counts: bool,
}

/// What must hold.
pub struct Bar {
    name: String,
    value: f64,
    spread: Option<[f64; 2]>,
    bound: Bound,
    counts: bool,
}

/// On which side.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// The row that stands for all grants: RS256 is what most identity providers sign with, and Basic how most clients
/// prove themselves.
pub const GRANTS: &str = "h_rs256_basic";
/// The memory of one more worker.
pub const WORKER: &str = "k_worker";

const RATIOS: [(&str, &str, &str); 15] = [
    ("d_over_b", "d_warm_accept", "b_one_header"),
    // How much of it is that there is a wasm filter at all.
    ("d_over_no_filter", "d_warm_accept", "a_no_filter"),
    ("b_over_no_filter", "b_one_header", "a_no_filter"),
    // Of the two algorithms the one that `jwt_authn` is faster with: which key an issuer has is not the user's choice.
    ("d_over_jwt_authn", "d_warm_accept", "c_jwt_authn_rs256"),
    ("d_over_jwt_authn_es256", "d_warm_accept", "c_jwt_authn_es256"),
    ("d_over_jwt_authn_cached", "d_warm_accept", "c_jwt_authn_cached"),
    // The very same tokens.
    ("e_over_jwt_authn", "e_new_tokens", "c_jwt_authn_es256"),
    ("e_after_revocation_over_jwt_authn", "e_after_revocation", "c_jwt_authn_es256"),
    ("e_over_jwt_authn_rs256", "e_new_tokens", "c_jwt_authn_rs256"),
    ("f_over_b", "f_warm_upgrade", "b_one_header"),
    ("g_1k_over_no_filter", "g_1k", "g_1k_no_filter"),
    ("g_64k_over_no_filter", "g_64k", "g_64k_no_filter"),
    ("h_over_fastmcp", GRANTS, "h_fastmcp"),
    ("h_over_python_sdk", GRANTS, "h_python_sdk"),
    ("j_tokens_100k_over_e", "j_tokens_100k", "e_new_tokens"),
];

/// What grows, inside its bounds, and what it is held against.
const GROWTH: [(&str, &str); 9] = [
    ("j_tokens_1k", "j_tokens_1"),
    ("j_tokens_10k", "j_tokens_1"),
    ("j_jti_1m", "j_jti_1k"),
    ("j_resources_100", "j_resources_1"),
    ("j_resources_1000", "j_resources_1"),
    ("j_clients_100", "j_clients_1"),
    ("j_clients_1000", "j_clients_1"),
    ("j_providers_100", "j_providers_1"),
    ("j_providers_1000", "j_providers_1"),
];

const BARS: [(&str, f64); 8] = [
    ("d_over_b", 0.9),
    ("d_over_jwt_authn", 1.5),
    ("e_over_jwt_authn", 0.85),
    ("f_over_b", 0.9),
    ("h_over_fastmcp", 20.0),
    ("h_over_python_sdk", 3.0),
    ("growth_worst", 0.9),
    // "Never worse", as far as two equal rows are equal in one run.
    ("j_tokens_100k_over_e", 0.95),
];

/// All ratios whose rows are there.
pub fn ratios(figures: &[Figure]) -> Vec<Ratio> {
    let mut ratios: Vec<_> =
        RATIOS.iter().filter_map(|(name, over, under)| ratio(name, over, under, figures)).collect();
    let growth: Vec<_> = GROWTH
        .iter()
        .filter_map(|(big, one)| ratio(&format!("{big}_over_1"), big, one, figures))
        .collect();
    let worst = growth.iter().min_by(|one, other| one.value.total_cmp(&other.value));
    ratios.extend(worst.map(|worst| Ratio {
        name: "growth_worst".into(),
        counts: growth.iter().all(|ratio| ratio.counts),
        ..*worst
    }));
    ratios.extend(growth);
    ratios
}

/// All bars whose figures are there.
pub fn bars(ratios: &[Ratio], figures: &[Figure], about: &About) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (name, least) in BARS {
        if let Some(ratio) = ratios.iter().find(|ratio| ratio.name == name) {
            let (name, bound) = (name.to_owned(), Bound::AtLeast(least));
            let (value, spread, counts) = (ratio.value, Some(ratio.spread), ratio.counts);
            bars.push(Bar { name, value, spread, bound, counts });
        }
    }
    let alone = [
        ("grants_per_s", find(figures, GRANTS), Bound::AtLeast(4000.0)),
        ("worker_mib", find(figures, WORKER), Bound::AtMost(16.0)),
    ];
    for (name, figure, bound) in alone {
        if let Some(figure) = figure {
            let (value, counts) = (figure.median(), figure.counts());
            let spread = Some(bounds(&figure.values));
            bars.push(Bar { name: name.to_owned(), value, spread, bound, counts });
        }
    }
    let (name, value) = ("wasm_bytes".to_owned(), about.wasm_bytes as f64);
    bars.push(Bar { name, value, spread: None, bound: Bound::AtMost(1_500_000.0), counts: true });
    bars
}

/// Prints the bars.
pub fn table(bars: &[Bar]) {
    println!("\n{:<26} {:>10} {:>21}  bar", "of one run", "", "(min .. max)");
    for bar in bars {
        let spread = bar.spread.map(|[min, max]| format!("({min:.2} .. {max:.2})"));
        let (sign, bound) = match bar.bound {
            Bound::AtLeast(least) => (">=", least),
            Bound::AtMost(most) => ("<=", most),
        };
        let verdict = match (bar.counts, bar.is_met()) {
            (true, true) => "met",
            (true, false) => "NOT MET",
            (false, _) => "NOT MET: a row of it does not count",
        };
        let (name, value, spread) = (&bar.name, bar.value, spread.unwrap_or_default());
        println!("{name:<26} {value:>10.2} {spread:>21}  {sign} {bound}: {verdict}");
    }
}

impl Bar {
    fn is_met(&self) -> bool {
        self.counts
            && match self.bound {
                Bound::AtLeast(least) => self.value >= least,
                Bound::AtMost(most) => self.value <= most,
            }
    }

    /// As the report has it.
    pub fn to_json(&self) -> Value {
        let (side, bound) = match self.bound {
            Bound::AtLeast(least) => ("at_least", least),
            Bound::AtMost(most) => ("at_most", most),
        };
        json!({"name": self.name, "value": self.value, side: bound, "met": self.is_met()})
    }
}

fn ratio(name: &str, over: &str, under: &str, figures: &[Figure]) -> Option<Ratio> {
    let (over, under) = (find(figures, over)?, find(figures, under)?);
    let rounds: Vec<_> =
        over.values.iter().zip(&under.values).map(|(over, under)| over / under).collect();
    Some(Ratio {
        name: name.to_owned(),
        value: median(&rounds),
        spread: bounds(&rounds),
        counts: over.counts() && under.counts(),
    })
}

/// The figure of this name.
pub fn find<'a>(figures: &'a [Figure], name: &str) -> Option<&'a Figure> {
    figures.iter().find(|figure| figure.name == name)
}
