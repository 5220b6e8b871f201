//! Which part of a long list a response carries.

use serde::Serialize;

/// Most names in one response.
pub const NAMES_LIMIT: usize = 1024;
/// Most full descriptions in one response.
pub const LIST_LIMIT: usize = 256;
/// Most subjects with counts in one STREAM.INFO response.
pub const SUBJECT_DETAILS_LIMIT: usize = 100_000;

/// `total`, `offset` and `limit` of a paged response. All zero in error responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Page {
    pub total: usize,
    pub offset: usize,
    pub limit: usize,
}

impl Page {
    /// The page of `total` entries that starts at `offset`: a negative one means the start, one past the end an empty
    /// page.
    pub fn new(total: usize, offset: i64, limit: usize) -> Page {
        let offset = usize::try_from(offset).unwrap_or(0).min(total);
        Page { total, offset, limit }
    }

    /// The entries on this page, as a range of the whole list.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.total.min(self.offset + self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_never_leaves_its_list() {
        let check = |total, offset, expected: std::ops::Range<usize>| {
            assert_eq!(Page::new(total, offset, 256).range(), expected, "{total} {offset}");
        };
        check(0, 0, 0..0);
        check(5, 0, 0..5);
        check(5, 3, 3..5);
        check(5, 500, 5..5);
        check(5, -5, 0..5);
        check(5, i64::MAX, 5..5);
        check(5, i64::MIN, 0..5);
        check(1000, 256, 256..512);
        check(1000, 999, 999..1000);
    }
}
