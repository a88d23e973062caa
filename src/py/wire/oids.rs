//! Types of the server's that have a value of Python's, by their numbers in `pg_type.dat`.

/// How a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Text,
    Bool,
    Int2,
    Int4,
    Int8,
    /// One of the server's own numbers.
    Int,
    Double,
    /// Of single precision: its text is shorter than Python's of the same number would be.
    Float,
    Numeric,
    Bytes,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
}

pub(crate) const BOOL: u32 = 16;
pub(crate) const BYTEA: u32 = 17;
pub(crate) const INT8: u32 = 20;
pub(crate) const INT2: u32 = 21;
pub(crate) const INT4: u32 = 23;
pub(crate) const TEXT: u32 = 25;
pub(crate) const FLOAT8: u32 = 701;
pub(crate) const DATE: u32 = 1082;
pub(crate) const TIME: u32 = 1083;
pub(crate) const TIMESTAMP: u32 = 1114;
pub(crate) const TIMESTAMPTZ: u32 = 1184;
pub(crate) const INTERVAL: u32 = 1186;
pub(crate) const TIMETZ: u32 = 1266;
pub(crate) const NUMERIC: u32 = 1700;
pub(crate) const UUID: u32 = 2950;

/// How values of a type are read; what is not known is text.
pub(crate) fn reading(oid: u32) -> Reading {
    match oid {
        BOOL => Reading::Bool,
        BYTEA => Reading::Bytes,
        INT2 => Reading::Int2,
        INT4 => Reading::Int4,
        INT8 => Reading::Int8,
        // oid, xid, cid, xid8.
        26 | 28 | 29 | 5069 => Reading::Int,
        FLOAT8 => Reading::Double,
        700 => Reading::Float,
        NUMERIC => Reading::Numeric,
        DATE => Reading::Date,
        TIME => Reading::Time,
        TIMETZ => Reading::TimeTz,
        TIMESTAMP => Reading::Timestamp,
        TIMESTAMPTZ => Reading::TimestampTz,
        INTERVAL => Reading::Interval,
        UUID => Reading::Uuid,
        _ => Reading::Text,
    }
}

/// Arrays, and the type of their elements. `box[]` is not here: its elements stand between semicolons.
const ARRAYS: &[(u32, u32)] = &[
    (1000, BOOL),
    (1001, BYTEA),
    (1002, 18),
    (1003, 19),
    (1005, INT2),
    (1006, 22),
    (1007, INT4),
    (1009, 25),
    (1010, 27),
    (1011, 28),
    (1012, 29),
    (1014, 1042),
    (1015, 1043),
    (1016, INT8),
    (1021, 700),
    (1022, FLOAT8),
    (1028, 26),
    (1040, 829),
    (1041, 869),
    (651, 650),
    (1115, TIMESTAMP),
    (1182, DATE),
    (1183, TIME),
    (1185, TIMESTAMPTZ),
    (1187, INTERVAL),
    (1231, NUMERIC),
    (1270, TIMETZ),
    (1561, 1560),
    (1563, 1562),
    (199, 114),
    (2951, UUID),
    (3807, 3802),
    (3643, 3614),
    (3645, 3615),
    (3221, 3220),
    (143, 142),
    (791, 790),
    (3905, 3904),
    (3907, 3906),
    (3909, 3908),
    (3911, 3910),
    (3913, 3912),
    (3927, 3926),
    (6150, 4451),
    (6151, 4532),
    (6152, 4533),
    (6153, 4534),
    (6155, 4535),
    (6157, 4536),
];

/// The type of an array's elements.
pub(crate) fn element(array: u32) -> Option<u32> {
    let found = ARRAYS.iter().find(|(one, _)| *one == array);
    found.map(|(_, element)| *element)
}

/// The type of arrays of an element; 0 where the server is to find out.
pub(crate) fn array_of(element: u32) -> u32 {
    let found = ARRAYS.iter().find(|(_, one)| *one == element);
    found.map_or(0, |(array, _)| *array)
}
