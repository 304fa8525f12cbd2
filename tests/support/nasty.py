"""Names that somebody may give to files and classes."""

NASTY = (
    *(
        "$(touch pwned)",
        "`touch pwned`",
        "'; touch pwned; '",
        '"; touch pwned; "',
        "a && touch x",
    ),
    *("@/etc/passwd", "</etc/passwd", "--output=pwned", "-", "\\", "\\'", "{}", "{texts}", "%s"),
    *("```", "`````", "x\n```\n<img src=x onerror=alert(1)>", "~~~", "``` sh"),
    *("<script>alert(1)</script>", "<!-- keep notes -->", "--> <b>", "&lt;b&gt;", "&amp;"),
    *("[x](javascript:alert(1))", "![x](https://example.org/x.png)", "[x]: https://example.org"),
    *("a|b", "a\\|b", "|", "a\nb", "a\r\nb", "# h", "#", "> q", "- l", "1. l", "***", "---", "==="),
    *("_x_", "__x__", "*x*", "~~x~~", "$x$ $", "\x1b[31mred", "\x1b]0;title\x07", "\x9b2J", "\x00"),
    *("\u202egnp.exe", "\u2066x\u2069", "a\u2028b", "\ud800", "key: value", "- [", "? !!python/x"),
)
