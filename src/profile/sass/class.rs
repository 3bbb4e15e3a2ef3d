//! Classes of SASS instructions: names that group instructions by what they use, the same on every architecture.

/// The class of an instruction, by its opcode with suffixes (`LDG.E.128`) and operands.
///
/// Names in capitals are opcodes; those of memory instructions have the number of bits that a thread moves. The other
/// names are groups of opcodes.
pub(super) fn class(opcode: &str, operands: &str) -> &'static str {
    let mut parts = opcode.split('.');
    let base = parts.next().unwrap_or_default();
    if let Some(name) = memory(base, parts) {
        return name;
    }
    match base {
        "FFMA" => "FFMA",
        "FADD" => "FADD",
        "FMUL" => "FMUL",
        "FFMA2" => "FFMA2",
        "FADD2" => "FADD2",
        "FMUL2" => "FMUL2",
        "MUFU" => "MUFU",
        "HMMA" => "HMMA",
        "HGMMA" => "HGMMA",
        "SHFL" => "SHFL",
        "BAR" => "BAR",
        "SYNCS" => "SYNCS",
        "LDC" | "ULDC" | "LDCU" => "LDC",
        "ATOMS" => "ATOMS",
        "ATOM" | "ATOMG" | "RED" | "REDG" => "ATOM",
        // ptxas loads constants with HFMA2 and copies registers with IMAD.MOV.
        "HFMA2" if operands.contains("-RZ, RZ,") => "move",
        "IMAD" if opcode.starts_with("IMAD.MOV") => "move",
        "MOV" | "UMOV" | "SEL" | "USEL" | "FSEL" | "PRMT" | "UPRMT" | "CS2R" | "S2R" | "S2UR" | "R2UR" | "P2R"
        | "R2P" | "B2R" | "R2B" => "move",
        "VOTE" | "VOTEU" | "MATCH" | "REDUX" | "CREDUX" => "vote",
        "DEPBAR" | "LDGDEPBAR" | "WARPGROUP" | "ARRIVES" => "wait",
        "MEMBAR" | "FENCE" | "ERRBAR" | "CCTL" => "fence",
        "F2F" | "F2FP" | "F2I" | "I2F" | "I2FP" | "FRND" | "I2I" => "convert",
        "BRA" | "BRX" | "JMP" | "JMX" | "CALL" | "RET" | "EXIT" | "BSSY" | "BSYNC" | "BREAK" | "BMOV" | "WARPSYNC"
        | "ENDCOLLECTIVE" | "NOP" | "YIELD" | "NANOSLEEP" | "BPT" => "control",
        _ => family(base),
    }
}

/// The class of an opcode by its prefix or suffix.
fn family(base: &str) -> &'static str {
    let (begins, ends) = (|with| base.starts_with(with), |with| base.ends_with(with));
    if begins("UTMA") || begins("UBLK") {
        "TMA"
    } else if ends("MMA") {
        "MMA"
    } else if ends("SETP")
        || ends("SETP2")
        || ends("MNMX")
        || ends("MNMX2")
        || ends("MNMX3")
        || matches!(base, "PLOP3" | "UPLOP3" | "FCHK")
    {
        "compare"
    } else if begins("U") {
        "uniform"
    } else if begins("H") {
        "half"
    } else if matches!(base, "DADD" | "DMUL" | "DFMA") {
        "double"
    } else if begins("I")
        || begins("V")
        || matches!(base, "LEA" | "SHF" | "LOP3" | "POPC" | "FLO" | "BREV" | "SGXT" | "BMSK")
    {
        "integer"
    } else {
        "other"
    }
}

/// The class of a load or store. Its suffixes give the width; without one it is 32 bits.
fn memory<'a>(base: &str, mut suffixes: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let names = match base {
        "LDG" => ["LDG.8", "LDG.16", "LDG.32", "LDG.64", "LDG.128", "LDG.256"],
        "STG" => ["STG.8", "STG.16", "STG.32", "STG.64", "STG.128", "STG.256"],
        "LDS" => ["LDS.8", "LDS.16", "LDS.32", "LDS.64", "LDS.128", "LDS.256"],
        "STS" => ["STS.8", "STS.16", "STS.32", "STS.64", "STS.128", "STS.256"],
        "LDL" => ["LDL.8", "LDL.16", "LDL.32", "LDL.64", "LDL.128", "LDL.256"],
        "STL" => ["STL.8", "STL.16", "STL.32", "STL.64", "STL.128", "STL.256"],
        "LD" => ["LD.8", "LD.16", "LD.32", "LD.64", "LD.128", "LD.256"],
        "ST" => ["ST.8", "ST.16", "ST.32", "ST.64", "ST.128", "ST.256"],
        "LDGSTS" => ["LDGSTS.8", "LDGSTS.16", "LDGSTS.32", "LDGSTS.64", "LDGSTS.128", "LDGSTS.256"],
        // These move 8 x 8 matrices; the suffix is the number of matrices, not a width.
        "LDSM" => return Some("LDSM"),
        "STSM" => return Some("STSM"),
        _ => return None,
    };
    let width = suffixes.find_map(|suffix| match suffix {
        "U8" | "S8" => Some(0),
        "U16" | "S16" => Some(1),
        "64" => Some(3),
        "128" => Some(4),
        "256" => Some(5),
        _ => None,
    });
    Some(names[width.unwrap_or(2)])
}

#[cfg(test)]
mod tests {
    use super::class;

    #[test]
    fn opcodes_have_their_class() {
        for (opcode, operands, want) in [
            ("LDG.E.128", "R4, desc[UR4][R12.64]", "LDG.128"),
            ("LDG.E.EF.128.CONSTANT", "R4, [R2.64]", "LDG.128"),
            ("LDG.E.U16", "R4, [R2.64]", "LDG.16"),
            ("LDG.E", "R4, [R2.64]", "LDG.32"),
            ("STS.U8", "[R2], R3", "STS.8"),
            ("LDGSTS.E.BYPASS.128", "[R2], [R4.64]", "LDGSTS.128"),
            ("LDL.64", "R2, [R1]", "LDL.64"),
            ("LDSM.16.M88.4", "R4, [R2]", "LDSM"),
            ("ULDC.64", "UR4, c[0x0][0x208]", "LDC"),
            ("IMAD.MOV.U32", "R1, RZ, RZ, c[0x0][0x28]", "move"),
            ("IMAD.WIDE.U32", "R4, R5, 0x800, R2", "integer"),
            ("HFMA2.MMA", "R3, -RZ, RZ, 0, 0", "move"),
            ("HFMA2.MMA.BF16_V2", "R3, R4, R5, R6", "half"),
            ("HMMA.16816.F32.BF16", "R4, R8, R12, R4", "HMMA"),
            ("HGMMA.64x128x16.F32.BF16", "R24, gdesc[UR8], R24", "HGMMA"),
            ("IMMA.16832.S8.S8", "R4, R8, R12, R4", "MMA"),
            ("PLOP3.LUT", "P0, PT, P0, P1, PT, 0xa8, 0x0", "compare"),
            ("HMNMX2.BF16_V2", "R3, R4, R5, PT", "compare"),
            ("FSETP.GEU.FTZ.AND", "P0, PT, R3, R4, PT", "compare"),
            ("UIADD3", "UR4, UR4, 0x1, URZ", "uniform"),
            ("UTMALDG.2D", "[UR8], [UR4]", "TMA"),
            ("F2FP.BF16.F32.PACK_AB", "R3, R4, R5", "convert"),
            ("VIADD", "R3, R4, 0x1", "integer"),
            ("BRA.DIV", "UR4, `(.L_x_3)", "control"),
            ("FSWZADD", "R3, R4, R5, NPPPPPPN", "other"),
        ] {
            assert_eq!(class(opcode, operands), want, "{opcode} {operands}");
        }
    }
}
