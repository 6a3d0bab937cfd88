//! flipr's percentages: md5 without a salt, shares in ascending order, boundaries inclusive.

use std::cmp::Ordering;

use md5::{Digest, Md5};

use super::Value;
use super::string_test::with_case;
use crate::rules::bucket::BUCKETS;
use crate::rules::input::InputId;
use crate::rules::table::TargetId;

/// Where an id falls between 0 and 1, both inclusive: bytes 4 to 8 of its md5 as a little-endian number.
pub fn id_to_percent(id: &str) -> f64 {
    let digest = Md5::digest(id.as_bytes());
    let bytes = [digest[4], digest[5], digest[6], digest[7]];
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// Sorts shares as flipr's comparison does, which is no order where texts that are no numbers take part. A stable
/// insertion sort, as V8 does for short lists: it takes any comparison and always ends.
pub(super) fn js_percent_order<T>(shares: &mut [(Value, T)]) {
    for end in 1..shares.len() {
        let mut at = end;
        while at > 0 && js_less(&shares[at].0, &shares[at - 1].0) {
            shares.swap(at, at - 1);
            at -= 1;
        }
    }
}

/// JavaScript's `<`.
fn js_less(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.encode_utf16().cmp(b.encode_utf16()) == Ordering::Less,
        _ => a.js_number() < b.js_number(),
    }
}

/// One percent rule over the entries of the item that chooses the version.
#[derive(Debug)]
pub(crate) struct PercentBands {
    /// The id.
    pub(crate) input: InputId,
    case_sensitive: bool,
    /// The share's end, between 0 and 1, and where it goes; in flipr's order.
    bands: Box<[(f64, TargetId)]>,
}

impl PercentBands {
    /// The bands of shares in percent, which are numbers in 0..=100, in the order of the document.
    pub(super) fn new(input: InputId, case_sensitive: bool, mut shares: Vec<(f64, TargetId)>) -> Self {
        shares.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut end = 0.0;
        for share in &mut shares {
            end += share.0 / 100.0;
            share.0 = end;
        }
        Self { input, case_sensitive, bands: shares.into_boxed_slice() }
    }

    /// Where an id goes, if it is in a band, and its place in 0..10000 (flipr itself is finer).
    pub(crate) fn choose(&self, id: &str) -> (Option<TargetId>, u16) {
        let place = with_case(id, self.case_sensitive, id_to_percent);
        let target = self.bands.iter().find(|(end, _)| place <= *end).map(|(_, target)| *target);
        (target, in_buckets(place).min(BUCKETS - 1))
    }

    /// The bands in order with the bucket that each ends before.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (TargetId, u16)> {
        self.bands.iter().map(|(end, target)| (*target, in_buckets(*end)))
    }
}

fn in_buckets(place: f64) -> u16 {
    // Between 0 and 10000, so that nothing is lost but the fraction.
    (place.clamp(0.0, 1.0) * f64::from(BUCKETS)) as u16
}
