#!/usr/bin/env python3
"""Lists what libcuda.so exports, from the CUDA headers: python3 driver-exports.py INCLUDE_DIR > exports.txt

One line an export: its name, the name and the version under which cuGetProcAddress finds it, and `ptds` for a variant whose
null stream is the per-thread one. Names are facts of the ABI; nothing else of the headers is kept.
"""

import re
import sys
from pathlib import Path

HEADERS = ["cuda.h", "cudaGL.h", "cudaEGL.h", "cudaVDPAU.h"]
TYPEDEFS = ["cudaTypedefs.h", "cudaProfilerTypedefs.h", "cudaGLTypedefs.h", "cudaEGLTypedefs.h", "cudaVDPAUTypedefs.h"]
INTERNAL = "#if defined(__CUDA_API_VERSION_INTERNAL)\n"
DECLARATION = re.compile(r"CUresult\s+CUDAAPI\s+(cu\w+)\s*\(")
DEFINE = re.compile(r"#\s*define\s+(cu\w+)\s+(?:__CUDA_API_(PTDS|PTSZ)\((\w+)\)|(\w+))\s*$", re.M)
TYPEDEF = re.compile(r"PFN_(cu\w+?)_v(\d+)(_ptds|_ptsz)?\)")
# cudaProfiler.h comes with another package; WGL is Windows.
ALSO = ["cuProfilerInitialize", "cuProfilerStart", "cuProfilerStop"]
ELSEWHERE = {"cuWGLGetDevice"}
# cuda.h points this name at another function from a version on, which the typedefs do not say.
MOVED = [("cuGraphInstantiateWithFlags", "cuGraphInstantiate", 12000, "-")]


def read(path):
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def exports_of(text):
    """Exported names of one header: current ones, their per-thread variants, and the older ones kept for old programs."""
    at = text.rfind(INTERNAL)
    public, internal = (text[:at], text[at:]) if at >= 0 else (text, "")
    current, per_thread = {}, {}
    for name, kind, inside, plain in DEFINE.findall(public):
        if kind:
            per_thread[name] = f"{inside}_{kind.lower()}"
        current[name] = plain or inside
    names = set(DECLARATION.findall(internal))
    for name in DECLARATION.findall(public):
        names.add(current.get(name, name))
        if name in per_thread:
            names.add(per_thread[name])
    return names


def main():
    include = Path(sys.argv[1])
    names = set(ALSO)
    for header in HEADERS:
        names |= exports_of(read(include / header))
    versions = {}
    for header in TYPEDEFS:
        for base, version, suffix in TYPEDEF.findall(read(include / header)):
            versions.setdefault((base, suffix), set()).add(int(version))
    variants = {}
    for name in names - ELSEWHERE:
        base, number, suffix = re.fullmatch(r"(cu\w+?)(?:_v(\d+))?(_ptds|_ptsz)?", name).groups()
        variants.setdefault((base, suffix or ""), []).append((int(number or 1), name))
    lines = [f"{name} {base} {version} {ptds}" for name, base, version, ptds in MOVED]
    for key, found in variants.items():
        known = sorted(versions.get(key, []))
        if len(known) != len(found):
            sys.exit(f"{key}: {len(found)} exports, {len(known)} typedefs")
        for (_, name), version in zip(sorted(found), known):
            lines.append(f"{name} {key[0]} {version} {'ptds' if key[1] else '-'}")
    print("\n".join(sorted(lines)))


main()
