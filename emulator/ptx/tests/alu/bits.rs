//! Bitwise instructions against the pseudocode of the PTX manual, bit by bit.

use crate::harness::{against, against_all, check};

fn bit(value: u64, i: u64) -> bool {
    i < 64 && value >> i & 1 != 0
}

#[test]
fn logic() {
    for (ty, mask) in [("b16", 0xffff), ("b32", 0xffff_ffff), ("b64", u64::MAX)] {
        against(&format!("and.{ty} r, a, b"), |row| row[0] & row[1]);
        against(&format!("or.{ty} r, a, b"), |row| row[0] | row[1]);
        against(&format!("xor.{ty} r, a, b"), |row| row[0] ^ row[1]);
        against(&format!("not.{ty} r, a"), |row| !row[0] & mask);
        against(&format!("cnot.{ty} r, a"), |row| u64::from(row[0] == 0));
    }
    against("and.pred r, a, b", |row| row[0] & row[1]);
    against("or.pred r, a, b", |row| row[0] | row[1]);
    against("xor.pred r, a, b", |row| row[0] ^ row[1]);
    against("not.pred r, a", |row| row[0] ^ 1);
    against("and.pred r, !a, b", |row| (row[0] ^ 1) & row[1]);
    against("or.pred r, a, !b", |row| row[0] | row[1] ^ 1);
}

#[test]
fn lop3_tables() {
    // Every table with the three constants whose bits enumerate the inputs: the result is the table itself.
    for table in 0..=255u64 {
        check(&format!("lop3.b32 r, a, b, c, {table}"), &[&[0xf0, 0xcc, 0xaa, table_of(table)]]);
    }
    against("lop3.b32 r, a, b, c, 0x1a", |row| (row[0] & row[1] | row[2]) ^ row[0]);
    against("lop3.b32 r, a, b, c, 0x96", |row| row[0] ^ row[1] ^ row[2]);
}

/// The bits above the table's eight have the inputs 0, 0, 0.
fn table_of(table: u64) -> u64 {
    table | if table & 1 != 0 { 0xffff_ff00 } else { 0 }
}

#[test]
fn lop3_with_a_predicate() {
    let f = |row: &[u64]| row[0] & row[1] & row[2];
    against_all("lop3.and.b32 r|p, a, b, c, 0x80, q", |row| vec![f(row), u64::from(f(row) != 0) & row[3]]);
    against_all("lop3.or.b32 r|p, a, b, c, 0x80, q", |row| vec![f(row), u64::from(f(row) != 0) | row[3]]);
    against_all("lop3.or.b32 r|p, a, b, c, 0x80, !q", |row| vec![f(row), u64::from(f(row) != 0) | row[3] ^ 1]);
    against("lop3.and.b32 _|p, a, b, c, 0x80, q", |row| u64::from(f(row) != 0) & row[3]);
    // If the result is also a source, the predicate is computed from the old value.
    against_all("lop3.or.b32 a|p, a, b, c, 0x80, q", |row| vec![f(row), u64::from(f(row) != 0) | row[3]]);
}

#[test]
fn shifts() {
    for (ty, width) in [("b16", 16u32), ("b32", 32), ("b64", 64)] {
        let mask = u64::MAX >> (64 - width);
        let clamp = |n: u64| if n >= u64::from(width) { None } else { Some(n as u32) };
        against(&format!("shl.{ty} r, a, b"), |row| clamp(row[1]).map_or(0, |n| row[0] << n & mask));
        for unsigned in [ty.to_string(), format!("u{width}")] {
            against(&format!("shr.{unsigned} r, a, b"), |row| clamp(row[1]).map_or(0, |n| row[0] >> n));
        }
        against(&format!("shr.s{width} r, a, b"), |row| {
            let signed = (row[0] << (64 - width)) as i64 >> (64 - width);
            (signed >> row[1].min(63)) as u64 & mask
        });
    }
    check("shl.b16 r, a, b", &[&[0xffff, 16, 0], &[0xffff, 15, 0x8000], &[1, 0xffff_ffff, 0]]);
    check("shr.s16 r, a, b", &[&[0x8000, 15, 0xffff], &[0x8000, 200, 0xffff], &[0x7fff, 200, 0]]);
    check("shr.s32 r, a, b", &[&[0x8000_0000, 32, 0xffff_ffff], &[0x8000_0000, 0xffff_ffff, 0xffff_ffff]]);
    check("shr.u32 r, a, b", &[&[0x8000_0000, 32, 0], &[0x8000_0000, 31, 1]]);
    check("shl.b64 r, a, b", &[&[1, 63, 1 << 63], &[1, 64, 0]]);
}

#[test]
fn funnel_shifts() {
    let both = |row: &[u64]| row[1] << 32 | row[0];
    let low = |value: u64| value & 0xffff_ffff;
    against("shf.r.wrap.b32 r, a, b, c", |row| low(both(row) >> (row[2] & 31)));
    against("shf.r.clamp.b32 r, a, b, c", |row| low(both(row) >> row[2].min(32)));
    against("shf.l.wrap.b32 r, a, b, c", |row| both(row) << (row[2] & 31) >> 32);
    against("shf.l.clamp.b32 r, a, b, c", |row| if row[2] >= 32 { row[0] } else { both(row) << row[2] >> 32 });
    check("shf.l.clamp.b32 r, a, b, c", &[&[0xaaaa_aaaa, 0x5555_5555, 32, 0xaaaa_aaaa], &[1, 2, 0, 2]]);
}

#[test]
fn permutation() {
    let general = |row: &[u64]| {
        let bytes = row[1] << 32 | row[0];
        (0..4).fold(0, |word, i| {
            let selector = row[2] >> (4 * i) & 15;
            let byte = bytes >> (8 * (selector & 7)) & 0xff;
            let byte = if selector & 8 != 0 { if byte & 0x80 != 0 { 0xff } else { 0 } } else { byte };
            word | byte << (8 * i)
        })
    };
    against("prmt.b32 r, a, b, c", general);
    against("prmt.b32 r, a, b, 0x5410", |row| general(&[row[0], row[1], 0x5410]));
    against("prmt.b32 r, a, b, 0xba98", |row| general(&[row[0], row[1], 0xba98]));
    let (a, b) = (0x0302_0100, 0x0706_0504);
    let modes: [(&str, [u64; 4]); 6] = [
        ("f4e", [0x0302_0100, 0x0403_0201, 0x0504_0302, 0x0605_0403]),
        ("b4e", [0x0506_0700, 0x0607_0001, 0x0700_0102, 0x0001_0203]),
        ("rc8", [0, 0x0101_0101, 0x0202_0202, 0x0303_0303]),
        ("ecl", [0x0302_0100, 0x0302_0101, 0x0302_0202, 0x0303_0303]),
        ("ecr", [0, 0x0101_0100, 0x0202_0100, 0x0302_0100]),
        ("rc16", [0x0100_0100, 0x0302_0302, 0x0100_0100, 0x0302_0302]),
    ];
    for (mode, expected) in modes {
        for (control, expected) in expected.into_iter().enumerate() {
            let row = &[a, b, control as u64 | 0xabc0, expected];
            check(&format!("prmt.b32.{mode} r, a, b, c"), &[row]);
        }
    }
}

#[test]
fn counting() {
    against("popc.b32 r, a", |row| u64::from(row[0].count_ones()));
    against("popc.b64 r, a", |row| u64::from(row[0].count_ones()));
    against("clz.b32 r, a", |row| (0..32).take_while(|i| !bit(row[0], 31 - i)).count() as u64);
    against("clz.b64 r, a", |row| (0..64).take_while(|i| !bit(row[0], 63 - i)).count() as u64);
    against("brev.b32 r, a", |row| (0..32).map(|i| u64::from(bit(row[0], 31 - i)) << i).sum());
    against("brev.b64 r, a", |row| (0..64).map(|i| u64::from(bit(row[0], 63 - i)) << i).sum());
    for (ty, msb) in [("u32", 31u64), ("s32", 31), ("u64", 63), ("s64", 63)] {
        let find = move |a: u64| {
            let negative = ty.starts_with('s') && bit(a, msb);
            (0..=msb).rev().find(|&i| bit(a, i) != negative)
        };
        against(&format!("bfind.{ty} r, a"), |row| find(row[0]).unwrap_or(0xffff_ffff));
        against(&format!("bfind.shiftamt.{ty} r, a"), |row| find(row[0]).map_or(0xffff_ffff, |i| msb - i));
    }
}

#[test]
fn fields() {
    for (ty, msb) in [("u32", 31u64), ("s32", 31), ("u64", 63), ("s64", 63)] {
        against(&format!("bfe.{ty} r, a, b, c"), |row| {
            let (a, position, length) = (row[0], row[1] & 255, row[2] & 255);
            let signed = ty.starts_with('s') && length != 0;
            let sign = signed && bit(a, (position + length).wrapping_sub(1).min(msb));
            let of = |i: u64| if i < length && position + i <= msb { bit(a, position + i) } else { sign };
            (0..=msb).map(|i| u64::from(of(i)) << i).sum()
        });
    }
    for (ty, msb) in [("b32", 31u64), ("b64", 63)] {
        against(&format!("bfi.{ty} r, a, b, c, d"), |row| {
            let (position, length) = (row[2] & 255, row[3] & 255);
            let of = |i: u64| {
                let inside = i >= position && i - position < length;
                if inside { bit(row[0], i - position) } else { bit(row[1], i) }
            };
            (0..=msb).map(|i| u64::from(of(i)) << i).sum()
        });
    }
    check(
        "bfe.s32 r, a, b, c",
        &[
            &[0x80, 7, 1, 0xffff_ffff],
            &[0x8000_0000, 40, 3, 0xffff_ffff],
            &[0x8000_0000, 31, 0, 0],
            &[0x8000_0000, 0, 255, 0x8000_0000],
            &[0xabcd, 256 + 4, 256 + 4, 0xffff_fffc],
        ],
    );
    check("bfi.b32 r, a, b, c, d", &[&[0xff, 0, 28, 8, 0xf000_0000], &[0xff, 5, 32, 8, 5], &[0xff, 5, 0, 0, 5]]);
}

#[test]
fn finding_the_nth_set_bit() {
    check(
        "fns.b32 r, a, b, c",
        &[
            &[0xaaaa_aaaa, 2, 0, 0xffff_ffff],
            &[0xaaaa_aaaa, 3, 0, 3],
            &[0xaaaa_aaaa, 2, 1, 3],
            &[0xaaaa_aaaa, 2, 0xffff_ffff, 1],
            &[0xaaaa_aaaa, 3, 0xffff_fffe, 1],
            &[0xaaaa_aaaa, 3, 2, 5],
            &[0xaaaa_aaaa, 31, 2, 0xffff_ffff],
            &[0, 0, 1, 0xffff_ffff],
            &[0xffff_ffff, 31, 0x8000_0000, 0xffff_ffff],
        ],
    );
}

#[test]
fn extension_and_masks() {
    for (mode, ty) in [("clamp", "u32"), ("wrap", "u32"), ("clamp", "s32"), ("wrap", "s32")] {
        against(&format!("szext.{mode}.{ty} r, a, b"), |row| {
            let (a, n) = (row[0], row[1] & 31);
            if mode == "clamp" && row[1] >= 32 {
                return a;
            }
            let mask = 0xffff_ffff << n & 0xffff_ffff;
            let sign = ty == "s32" && n != 0 && bit(a, n - 1);
            a & !mask | if sign { mask } else { 0 }
        });
    }
    for mode in ["clamp", "wrap"] {
        against(&format!("bmsk.{mode}.b32 r, a, b"), |row| {
            let (start, width) = if mode == "clamp" { (row[0], row[1].min(32)) } else { (row[0] & 31, row[1] & 31) };
            (0..32).map(|i| u64::from(i >= start && i - start < width) << i).sum()
        });
    }
}
