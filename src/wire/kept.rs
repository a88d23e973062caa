//! What has come that nobody has taken yet: so many, and so many bytes; beyond that the oldest are dropped.

use std::collections::VecDeque;

/// What is kept.
#[derive(Debug)]
pub(super) struct Kept<T> {
    all: VecDeque<(T, usize)>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl<T> Kept<T> {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            all: VecDeque::new(),
            bytes: 0,
            most,
            most_bytes,
        }
    }

    /// Keeps one, which takes so many bytes. The last one is kept however long it is.
    pub(super) fn push(&mut self, one: T, bytes: usize) {
        while self.all.len() >= self.most || self.bytes.saturating_add(bytes) > self.most_bytes {
            let Some((_, dropped)) = self.all.pop_front() else {
                break;
            };
            self.bytes -= dropped;
        }
        self.bytes += bytes;
        self.all.push_back((one, bytes));
    }

    /// Takes all.
    pub(super) fn take(&mut self) -> VecDeque<T> {
        self.bytes = 0;
        let all = std::mem::take(&mut self.all);
        all.into_iter().map(|(one, _)| one).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_long() {
        let mut kept = Kept::new(3, 100);
        for n in 0..5 {
            kept.push(n, 10);
        }
        assert_eq!(kept.take(), [2, 3, 4]);
        assert!(kept.is_empty());
        for n in 0..3 {
            kept.push(n, 40);
        }
        assert_eq!(kept.take(), [1, 2]);
        kept.push(1, 10);
        kept.push(2, 1000);
        kept.push(3, 10);
        assert_eq!(kept.take(), [3]);
    }
}
