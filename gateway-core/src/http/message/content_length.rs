//! Content-Length against what comes (RFC 9113 section 8.1.1). In: the number that a header section says, then how
//! much content came. Out: whether they agree. One per message.

use super::Malformed;

/// The content of a message that is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentLeft(Option<u64>);

impl ContentLeft {
    /// As much as Content-Length says; any amount if it says nothing.
    pub const fn new(content_length: Option<u64>) -> Self {
        ContentLeft(content_length)
    }

    /// Any amount: for responses to HEAD and those of status 304, whose Content-Length is that of another message
    /// (RFC 9110 section 8.6).
    pub const fn any() -> Self {
        ContentLeft(None)
    }

    /// Counts content that came.
    ///
    /// # Errors
    ///
    /// It is more than there should be.
    pub fn take(&mut self, bytes: usize) -> Result<(), Malformed> {
        if let Some(left) = &mut self.0 {
            let rest = left.checked_sub(bytes as u64);
            *left = rest.ok_or(Malformed::ContentMismatch)?;
        }
        Ok(())
    }

    /// Checks that nothing is missing at the end.
    ///
    /// # Errors
    ///
    /// It is less than there should be.
    pub const fn end(&self) -> Result<(), Malformed> {
        match self.0 {
            None | Some(0) => Ok(()),
            Some(_) => Err(Malformed::ContentMismatch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_as_long_as_it_says() {
        let mut left = ContentLeft::new(Some(5));
        assert_eq!(left.end(), Err(Malformed::ContentMismatch));
        assert_eq!(left.take(3), Ok(()));
        assert_eq!(left.end(), Err(Malformed::ContentMismatch));
        assert_eq!(left.take(2), Ok(()));
        assert_eq!((left.end(), left.take(0)), (Ok(()), Ok(())));
        assert_eq!(left.take(1), Err(Malformed::ContentMismatch));
        assert_eq!(ContentLeft::new(Some(0)).end(), Ok(()));
    }

    #[test]
    fn content_of_no_announced_length_may_have_any() {
        for mut left in [ContentLeft::any(), ContentLeft::new(None)] {
            assert_eq!(left.take(usize::MAX), Ok(()));
            assert_eq!(left.end(), Ok(()));
        }
    }
}
