//! Closed lists: enums with their cases, labels and properties in one table, a row a case. In: the table. Out: the
//! enum, with `ALL`, `index` and `label`. A row that lacks a column does not compile, nor does a table with one label
//! twice.

/// Declares a closed list. A row is a case and its label. With a type behind the enum's name, a row also has a value
/// of that type, which the enum's private `row` returns.
///
/// The enum gets `ALL` (all cases, in the order of the table), `index` (position in `ALL`) and `label` (its name in
/// metrics and logs).
///
/// ```
/// gateway_common::closed_list! {
///     /// How a coin falls.
///     pub enum Side: u32 {
///         /// With the head up.
///         Heads = "heads", 1;
///         /// With the tail up.
///         Tails = "tails", 2;
///     }
/// }
/// assert_eq!(Side::ALL.map(Side::label), ["heads", "tails"]);
/// assert_eq!((Side::Tails.index(), Side::Tails.row()), (1, 2));
/// ```
#[macro_export]
macro_rules! closed_list {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident: $row:ty {
            $($(#[$case_attribute:meta])* $case:ident = $label:expr, $value:expr;)+
        }
    ) => {
        $crate::closed_list! {
            $(#[$attribute])*
            $visibility enum $name {
                $($(#[$case_attribute])* $case = $label;)+
            }
        }

        impl $name {
            const fn row(self) -> $row {
                match self {
                    $(Self::$case => $value,)+
                }
            }
        }
    };
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$case_attribute:meta])* $case:ident = $label:expr;)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visibility enum $name {
            $($(#[$case_attribute])* $case,)+
        }

        impl $name {
            /// Every case, in the order of the table.
            $visibility const ALL: [Self; [$(Self::$case),+].len()] = [$(Self::$case),+];

            /// Position in [`ALL`](Self::ALL), for counters that are kept in an array.
            #[inline(always)]
            $visibility const fn index(self) -> usize {
                self as usize
            }

            /// The metric label and log field.
            $visibility const fn label(self) -> &'static str {
                match self {
                    $(Self::$case => $label,)+
                }
            }
        }

        const _: () = assert!(
            $crate::are_distinct(&[$($name::$case.label()),+]),
            concat!("two cases of ", stringify!($name), " have one label"),
        );
    };
}

/// Whether all `texts` differ. Evaluated at compile time, for the tables.
#[doc(hidden)]
pub const fn are_distinct(texts: &[&str]) -> bool {
    let mut later = 1;
    while later < texts.len() {
        let mut earlier = 0;
        while earlier < later {
            if is_same(texts[earlier].as_bytes(), texts[later].as_bytes()) {
                return false;
            }
            earlier += 1;
        }
        later += 1;
    }
    true
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}
