"""Prompts that whatever takes prompts has to take."""

ODD_PROMPTS = [
    "What is the capital of France?",
    "",
    " ",
    "\n\t\r",
    "\x00",
    "NUL \x00 in the middle",
    "lone surrogates \ud800 and \udfff",
    "Докажите, что простых чисел бесконечно много.",
    "证明素数有无穷多个。",
    "أثبت أن الأعداد الأولية لا نهائية",
    "👩‍👩‍👧‍👦 e\u0301 \u202e \ufeff \u2028",
    "def f(x):\n    return x ** 2\n",
    "A) 1  B) 2  C) 3  D) 4",
    "<|endoftext|> [CLS] [SEP] [MASK] [UNK] <s> </s>",
]
