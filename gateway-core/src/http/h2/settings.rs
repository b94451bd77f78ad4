//! The parameters of a SETTINGS frame (RFC 9113 section 6.5). In: the payload of a frame. Out: known parameters, each
//! with a value that it may have. Pure.

use super::Violation;

/// Length of one parameter in bytes: its identifier and its value.
pub(super) const SETTING_BYTES: usize = 6;

/// Largest window (RFC 9113 section 6.9.1).
pub(super) const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

const HEADER_TABLE_SIZE: u16 = 0x01;
const ENABLE_PUSH: u16 = 0x02;
const MAX_CONCURRENT_STREAMS: u16 = 0x03;
const INITIAL_WINDOW_SIZE: u16 = 0x04;
const MAX_FRAME_SIZE: u16 = 0x05;
const MAX_HEADER_LIST_SIZE: u16 = 0x06;

/// A parameter of RFC 9113 section 6.5.2, in its sender's words: what the receiver of the frame has to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Bytes of the dynamic table that the sender decodes with.
    HeaderTableSize(u32),
    /// Whether PUSH_PROMISE is allowed.
    EnablePush(bool),
    /// Streams that the sender lets the receiver have open.
    MaxConcurrentStreams(u32),
    /// The window in bytes that each stream begins with, at most 2^31 - 1.
    InitialWindowSize(u32),
    /// Longest payload of a frame, between 2^14 and 2^24 - 1 bytes.
    MaxFrameSize(u32),
    /// Longest header list, in bytes as RFC 9113 section 10.5.1 counts them. Advice.
    MaxHeaderListSize(u32),
}

impl Setting {
    fn read(identifier: u16, value: u32) -> Result<Option<Setting>, Violation> {
        let setting = match identifier {
            HEADER_TABLE_SIZE => Setting::HeaderTableSize(value),
            ENABLE_PUSH if value > 1 => return Err(Violation::SettingValue),
            ENABLE_PUSH => Setting::EnablePush(value == 1),
            MAX_CONCURRENT_STREAMS => Setting::MaxConcurrentStreams(value),
            INITIAL_WINDOW_SIZE if value > WINDOW_BYTES_MAX => {
                return Err(Violation::SettingWindow);
            }
            INITIAL_WINDOW_SIZE => Setting::InitialWindowSize(value),
            MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                return Err(Violation::SettingValue);
            }
            MAX_FRAME_SIZE => Setting::MaxFrameSize(value),
            MAX_HEADER_LIST_SIZE => Setting::MaxHeaderListSize(value),
            // RFC 9113 section 6.5.2: an unknown parameter is ignored.
            _ => return Ok(None),
        };
        Ok(Some(setting))
    }

    /// Identifier and value, as in a frame.
    pub(super) fn to_bytes(self) -> [u8; SETTING_BYTES] {
        let (identifier, value) = match self {
            Setting::HeaderTableSize(value) => (HEADER_TABLE_SIZE, value),
            Setting::EnablePush(enabled) => (ENABLE_PUSH, enabled.into()),
            Setting::MaxConcurrentStreams(value) => (MAX_CONCURRENT_STREAMS, value),
            Setting::InitialWindowSize(value) => (INITIAL_WINDOW_SIZE, value),
            Setting::MaxFrameSize(value) => (MAX_FRAME_SIZE, value),
            Setting::MaxHeaderListSize(value) => (MAX_HEADER_LIST_SIZE, value),
        };
        let ([i0, i1], [v0, v1, v2, v3]) = (identifier.to_be_bytes(), value.to_be_bytes());
        [i0, i1, v0, v1, v2, v3]
    }
}

/// The known parameters of a SETTINGS payload, in the order in which they take effect.
pub fn settings(payload: &[u8]) -> impl Iterator<Item = Result<Setting, Violation>> + '_ {
    let (parameters, _) = payload.as_chunks::<SETTING_BYTES>();
    parameters.iter().filter_map(|[i0, i1, value @ ..]| {
        Setting::read(u16::from_be_bytes([*i0, *i1]), u32::from_be_bytes(*value)).transpose()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(identifier: u16, value: u32) -> Vec<Result<Setting, Violation>> {
        let payload = [&identifier.to_be_bytes()[..], &value.to_be_bytes()].concat();
        settings(&payload).collect()
    }

    #[test]
    fn a_parameter_is_read_as_it_is_written() {
        for setting in [
            Setting::HeaderTableSize(0),
            Setting::EnablePush(false),
            Setting::EnablePush(true),
            Setting::MaxConcurrentStreams(u32::MAX),
            Setting::InitialWindowSize((1 << 31) - 1),
            Setting::MaxFrameSize(1 << 14),
            Setting::MaxFrameSize((1 << 24) - 1),
            Setting::MaxHeaderListSize(9),
        ] {
            let read: Vec<_> = settings(&setting.to_bytes()).collect();
            assert_eq!(read, [Ok(setting)]);
        }
    }

    #[test]
    fn values_out_of_range_are_violations_each_with_its_code() {
        assert_eq!(read(ENABLE_PUSH, 2), [Err(Violation::SettingValue)]);
        for value in [0, (1 << 14) - 1, 1 << 24] {
            assert_eq!(read(MAX_FRAME_SIZE, value), [Err(Violation::SettingValue)]);
        }
        let too_wide = read(INITIAL_WINDOW_SIZE, 1 << 31);
        assert_eq!(too_wide, [Err(Violation::SettingWindow)]);
    }

    #[test]
    fn unknown_parameters_are_passed_over() {
        assert_eq!(read(0, 1), []);
        assert_eq!(read(0x09, 1), []); // SETTINGS_NO_RFC7540_PRIORITIES
        assert_eq!(read(u16::MAX, u32::MAX), []);
    }
}
