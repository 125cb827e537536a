"""Text that careless quoting would run, split, expand or lose."""

import random

PIECES = (
    *(
        "$(touch pwned)",
        "`touch pwned`",
        "$HOME",
        "${IFS}",
        "; touch pwned;",
        "&& false",
        "| cat",
        "> out",
        "< in",
        "#no",
    ),
    *("'", '"', "\\", "\\\\", "\\'", "''", "!!", "!x", "~", "*", "?", "[a-z]", "{a,b}", "(", ")", "&", "\t", " ", "  "),
    *(
        "\n",
        "\r",
        "\r\n",
        "\nEND\n",
        "\ncode=$?\n",
        "\n#SBATCH --nodes=9\n",
        "\x01",
        "\x1b[31m",
        "\x7f",
        "\x85",
        "\u2028",
    ),
    *(
        "é",
        "日本",
        "\U0001f600",
        "\u202e",
        "\ufeff",
        "%",
        "%j",
        "%%",
        "=",
        "==",
        ",",
        ":",
        "-",
        "--",
        "--help",
        "-rf",
        "@",
        "^",
    ),
    *(
        "a",
        "b.c",
        "0",
        "1e-3",
        "(0.5, 1.0)",
        "None",
        "yes",
        "null",
        "- x",
        "a: b",
        "|",
        ">",
        "${{ x }}",
        "%s",
        "{}",
        "{0}",
    ),
)


def text(rng: random.Random, without: str = "") -> str:
    """Up to six pieces in a row, without some characters."""
    joined = "".join(rng.choices(PIECES, k=rng.randint(1, 6)))
    return "".join(letter for letter in joined if letter not in without)
