//! Mutations of encoded protobuf messages that keep the wire format: field and length
//! prefixes stay valid at every level.

/// Numbers with a meaning in descriptors: types, labels, limits of field numbers, editions.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    3,
    4,
    5,
    9,
    10,
    11,
    14,
    999,
    1_000,
    18_999,
    536_870_911,
    2_147_483_648,
    u64::MAX,
];

/// Most levels of nested messages that are entered.
const MAX_DEPTH: usize = 12;

/// One field: its key and its encoded value, without the length.
#[derive(Clone)]
struct Field {
    key: u64,
    value: Vec<u8>,
}

impl Field {
    fn is_bytes(&self) -> bool {
        self.key % 8 == 2
    }
}

/// Changes one field of a message or of a nested message. None for bytes that are not a
/// message.
pub fn mutate(message: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut random = Random(u64::from(seed) + 0x9e37_79b9_7f4a_7c15);
    let fields = parse(message)?;
    // Values of other places: names that exist, numbers that are in use.
    let mut donors = Vec::new();
    collect(&fields, &mut random, MAX_DEPTH, &mut donors);
    let changed = change(fields, &donors, &mut random, MAX_DEPTH)?;
    Some(encode(&changed))
}

fn collect(fields: &[Field], random: &mut Random, depth: usize, donors: &mut Vec<Field>) {
    for field in fields {
        if donors.len() > 2_000 {
            return;
        }
        if random.below(4) == 0 {
            donors.push(field.clone());
        }
        if depth > 0
            && field.is_bytes()
            && random.below(3) > 0
            && let Some(inner) = parse(&field.value)
        {
            collect(&inner, random, depth - 1, donors);
        }
    }
}

fn change(
    mut fields: Vec<Field>,
    donors: &[Field],
    random: &mut Random,
    depth: usize,
) -> Option<Vec<Field>> {
    if fields.is_empty() {
        return None;
    }
    let at = random.below(fields.len());
    if depth > 0
        && fields[at].is_bytes()
        && random.below(8) > 0
        && let Some(inner) = parse(&fields[at].value).filter(|inner| !inner.is_empty())
    {
        fields[at].value = encode(&change(inner, donors, random, depth - 1)?);
        return Some(fields);
    }
    let donor = (!donors.is_empty()).then(|| donors[random.below(donors.len())].clone());
    match random.below(7) {
        0 => {
            fields.remove(at);
        }
        1 => fields.insert(at, fields[at].clone()),
        2 => {
            let other = random.below(fields.len());
            fields.swap(at, other);
        }
        3 => fields.insert(at, donor?),
        4 => {
            let donor = donor.filter(|donor| donor.key % 8 == fields[at].key % 8)?;
            fields[at].value = donor.value;
        }
        5 => fields[at].key = (1 + random.below(20) as u64) * 8 + fields[at].key % 8,
        _ if fields[at].key % 8 == 0 => {
            fields[at].value.clear();
            write_varint(&mut fields[at].value, NUMBERS[random.below(NUMBERS.len())]);
        }
        _ => {
            let length = fields[at].value.len();
            fields[at].value.truncate(random.below(length + 1));
        }
    }
    Some(fields)
}

fn parse(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes)?;
        if key / 8 == 0 || key / 8 > 536_870_911 {
            return None;
        }
        let value = match key % 8 {
            0 => {
                let before = bytes;
                read_varint(&mut bytes)?;
                &before[..before.len() - bytes.len()]
            }
            1 => bytes.split_off(..8)?,
            2 => {
                let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
                bytes.split_off(..length)?
            }
            5 => bytes.split_off(..4)?,
            _ => return None,
        };
        let value = value.to_vec();
        fields.push(Field { key, value });
    }
    Some(fields)
}

fn encode(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        write_varint(&mut bytes, field.key);
        if field.is_bytes() {
            write_varint(&mut bytes, field.value.len() as u64);
        }
        bytes.extend(&field.value);
    }
    bytes
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// xorshift64*.
struct Random(u64);

impl Random {
    /// Returns a number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        number as usize % limit
    }
}
