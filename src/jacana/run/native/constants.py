"""Constants of ``mathematics.py``, lowest power first. Written by ``tools/minimax.py``, not by hand."""

# fmt: off
LN2 = (  # 42 bits, so that a product with an exponent is exact, and the rest
    float.fromhex("0x1.62e42fefa3800p-1"),
    float.fromhex("0x1.ef35793c76730p-45"),
)
HALF_PI = (  # for products that are not rounded (fused multiply and add)
    float.fromhex("0x1.921fb54442d18p+0"),
    float.fromhex("0x1.1a62633145c06p-54"),
    float.fromhex("0x1.c1cd129024e08p-107"),
)
TWO_THIRDS = (
    float.fromhex("0x1.5555555555555p-1"),
    float.fromhex("0x1.5555555555555p-55"),
)
SCALARS = (  # 1/ln 2, 2/pi, bounds of the two ranges of erf
    float.fromhex("0x1.71547652b82fep+0"),
    float.fromhex("0x1.45f306dc9c883p-1"),
    float.fromhex("0x1.c000000000000p-1"),
    float.fromhex("0x1.8000000000000p+2"),
)
EXP_DOUBLE = (  # error 2**-57.2
    float.fromhex("0x1.0000000000009p-1"),
    float.fromhex("0x1.5555555555558p-3"),
    float.fromhex("0x1.55555555503f4p-5"),
    float.fromhex("0x1.111111110f808p-7"),
    float.fromhex("0x1.6c16c185fdf57p-10"),
    float.fromhex("0x1.a01a01b009bf4p-13"),
    float.fromhex("0x1.a01993bea65dfp-16"),
    float.fromhex("0x1.71ddf6bacdde1p-19"),
    float.fromhex("0x1.28b406507c871p-22"),
    float.fromhex("0x1.af631de754d99p-26"),
)
EXP_SINGLE = (  # error 2**-28.3
    float.fromhex("0x1.0000004fde3acp-1"),
    float.fromhex("0x1.55548f05c35c5p-3"),
    float.fromhex("0x1.5554613fa8b6ap-5"),
    float.fromhex("0x1.123b44de9d479p-7"),
    float.fromhex("0x1.6db1b49d16a9dp-10"),
)
EXPM1_DOUBLE = (  # error 2**-61.7
    float.fromhex("0x1.0000000000000p-1"),
    float.fromhex("0x1.5555555555559p-3"),
    float.fromhex("0x1.555555555555ap-5"),
    float.fromhex("0x1.111111110f6b5p-7"),
    float.fromhex("0x1.6c16c16c14433p-10"),
    float.fromhex("0x1.a01a01afe2946p-13"),
    float.fromhex("0x1.a01a01b0c01d3p-16"),
    float.fromhex("0x1.71ddf85a884e8p-19"),
    float.fromhex("0x1.27e4c58d84386p-22"),
    float.fromhex("0x1.af5eb2405cdd0p-26"),
    float.fromhex("0x1.1f95811261259p-29"),
)
EXPM1_SINGLE = (  # error 2**-26.2
    float.fromhex("0x1.00000034f6044p-1"),
    float.fromhex("0x1.5554af666114cp-3"),
    float.fromhex("0x1.555487e3a7efcp-5"),
    float.fromhex("0x1.1227f1f64d945p-7"),
    float.fromhex("0x1.6d981038d216ep-10"),
)
LOG_DOUBLE = (  # error 2**-57.6
    float.fromhex("0x1.555555555557cp-1"),
    float.fromhex("0x1.99999999847eap-2"),
    float.fromhex("0x1.2492493fad4e9p-2"),
    float.fromhex("0x1.c71c52be858bep-3"),
    float.fromhex("0x1.746647dc6dc7dp-3"),
    float.fromhex("0x1.399d295a4588dp-3"),
    float.fromhex("0x1.2f50f3f96fdaep-3"),
)
LOG_SINGLE = (  # error 2**-28.4
    float.fromhex("0x1.55557ac701cc2p-1"),
    float.fromhex("0x1.995ae70569344p-2"),
    float.fromhex("0x1.326fc75322251p-2"),
)
POW_DOUBLE = (  # error 2**-65.2
    float.fromhex("0x1.9999999999b08p-2"),
    float.fromhex("0x1.249249245bc11p-2"),
    float.fromhex("0x1.c71c7228a5349p-3"),
    float.fromhex("0x1.745ceb55d4e24p-3"),
    float.fromhex("0x1.3b1eafaefac24p-3"),
    float.fromhex("0x1.0f84f225800d9p-3"),
    float.fromhex("0x1.0e176de7b9d35p-3"),
)
SIN_DOUBLE = (  # error 2**-57.2
    float.fromhex("-0x1.555555555554dp-3"),
    float.fromhex("0x1.111111110fb4fp-7"),
    float.fromhex("-0x1.a01a019c30a78p-13"),
    float.fromhex("0x1.71de356f62771p-19"),
    float.fromhex("-0x1.ae5e4c4a23c35p-26"),
    float.fromhex("0x1.5d876f98220d3p-33"),
)
SIN_SINGLE = (  # error 2**-27.3
    float.fromhex("-0x1.5555453c95d66p-3"),
    float.fromhex("0x1.1106ba7861c53p-7"),
    float.fromhex("-0x1.990713ce5fde8p-13"),
)
COS_DOUBLE = (  # error 2**-62.6
    float.fromhex("0x1.5555555555553p-5"),
    float.fromhex("-0x1.6c16c16c16133p-10"),
    float.fromhex("0x1.a01a019e24e85p-16"),
    float.fromhex("-0x1.27e4f90404a4cp-22"),
    float.fromhex("0x1.1eea8957543c6p-29"),
    float.fromhex("-0x1.8ff9d93687342p-37"),
)
COS_SINGLE = (  # error 2**-32.2
    float.fromhex("0x1.55554ee1f2f75p-5"),
    float.fromhex("-0x1.6c0e787f0b5f1p-10"),
    float.fromhex("0x1.9a6f5c26d218fp-16"),
)
ERF_DOUBLE = (  # error 2**-61.4
    float.fromhex("0x1.06eba8214db69p-3"),
    float.fromhex("-0x1.812746b0379e5p-2"),
    float.fromhex("0x1.ce2f21a0429c0p-4"),
    float.fromhex("-0x1.b82ce3127ba3cp-6"),
    float.fromhex("0x1.565bcd0bd4526p-8"),
    float.fromhex("-0x1.c02db3658b340p-11"),
    float.fromhex("0x1.f9a31006bd56ap-14"),
    float.fromhex("-0x1.f4d01d5f8b09dp-17"),
    float.fromhex("0x1.b9c12217720d1p-20"),
    float.fromhex("-0x1.5dd08319f4bc5p-23"),
    float.fromhex("0x1.e54e0cc5d7932p-27"),
    float.fromhex("-0x1.dc9f8b6d4bbbdp-31"),
)
ERF_SINGLE = (  # error 2**-26.8
    float.fromhex("0x1.06eba6fb7d6f3p-3"),
    float.fromhex("-0x1.81270fd6caff7p-2"),
    float.fromhex("0x1.ce21d78ec463bp-4"),
    float.fromhex("-0x1.b6fe007bba31fp-6"),
    float.fromhex("0x1.4a07ef53f415ep-8"),
    float.fromhex("-0x1.463be67dae34ap-11"),
)
ERFC_DOUBLE = (  # error 2**-55.0
    float.fromhex("0x1.058671b52c775p-2"),
    float.fromhex("-0x1.b57034efd3f05p-2"),
    float.fromhex("0x1.eeea7dc8a7d9cp-3"),
    float.fromhex("-0x1.437f0b68d4eaep-4"),
    float.fromhex("0x1.e947158f98eafp-9"),
    float.fromhex("0x1.ca95ed99cc286p-8"),
    float.fromhex("-0x1.bc259fecc5be0p-11"),
    float.fromhex("-0x1.016b78daac1eap-10"),
    float.fromhex("0x1.6d5a65958d93ep-15"),
    float.fromhex("0x1.6db531d230284p-13"),
    float.fromhex("0x1.ce0ea76715ee9p-16"),
    float.fromhex("-0x1.d175261a1a5eep-16"),
    float.fromhex("-0x1.d5ca2a1dda60ep-17"),
    float.fromhex("0x1.12d26ac30dc72p-19"),
    float.fromhex("0x1.eb445f88cd073p-19"),
)
ERFC_SINGLE = (  # error 2**-35.2
    float.fromhex("0x1.058671ac6f5cfp-2"),
    float.fromhex("-0x1.b57034b46b60fp-2"),
    float.fromhex("0x1.eeea8ca1f1241p-3"),
    float.fromhex("-0x1.437ee51e49069p-4"),
    float.fromhex("0x1.e8e2441a0d7e1p-9"),
    float.fromhex("0x1.ca1d42798df59p-8"),
    float.fromhex("-0x1.b03f46cc010aep-11"),
    float.fromhex("-0x1.dfbabd3be7452p-11"),
)
# fmt: on
