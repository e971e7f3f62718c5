"""Text that means something to SQL, to Lua, to Redis, to format strings: a name all the same."""

from hypothesis import strategies as st

PIECES = [
    *(
        "'",
        '"',
        "\\",
        "\\'",
        "''",
        "$",
        "$$",
        "$pyrate_limiter$",
        "E'",
        "U&'",
        ";",
        "--",
        "/*",
        "*/",
    ),
    *("\0", "\n", "\r\n", "\t", "\x1a", "\x7f", "\u2028", "\ufeff", "\x85"),
    *(
        "%",
        "%s",
        "%(name)s",
        "%%",
        "{",
        "}",
        "{}",
        "{0}",
        "@table@",
        "@mine@",
        "@key@",
        "@claim@",
        "p_name",
        "NULL",
    ),
    *("\ud800", "\udfff", "\ud83d\ude00", "😀", "é", "ÿ", "ß", "\u0130", "␀", "\\x00", "\\ud800"),
    *(
        " ",
        "  ",
        ":",
        ":1",
        "claim 1 0 0 x",
        "flush",
        "~",
        "~hold",
        "~hold+",
        "-5:1",
        "+5:1",
        "=5:1",
    ),
    *("ERR", "-NOSCRIPT", "*1\r\n$4\r\nPING\r\n", "x" * 300, "é" * 600),
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    st.text(st.characters(), max_size=40),  # halves of surrogate pairs included
    st.text(st.characters(max_codepoint=127), max_size=40),
)
