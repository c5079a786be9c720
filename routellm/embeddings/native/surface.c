/* The surface features, as `surface.py` has them, in one pass over a text. */
#include "scan.h"

#include <math.h>
#include <string.h>

enum { WORD = 1, DIGIT = 2, CAPITAL = 4, SIGN = 8, HIGH = 16, CODE = 32, MATH = 64 };

void surface_kinds(SurfaceRules *rules, Text code, Text math) {
    for (int byte = 0; byte < 256; byte++) {
        int sign = byte > ' ' && byte < 0x7f && !is_letter(byte) && !is_digit(byte);
        int word = is_of_word(byte) ? WORD : 0, digit = is_digit(byte) ? DIGIT : 0, capital = is_capital(byte) ? CAPITAL : 0;
        rules->kinds[byte] = word | digit | capital | (sign ? SIGN : 0) | (byte >= 0x80 ? HIGH : 0);
    }
    for (size_t i = 0; i < code.length; i++) rules->kinds[code.at[i]] |= CODE;
    for (size_t i = 0; i < math.length; i++) rules->kinds[math.at[i]] |= MATH;
}

typedef struct {
    size_t words, word_bytes, common, lines, numbers, digits, capitals, signs, high, code, math;
    size_t options, option_lines, list_items, fences, latex, question_marks, quotes, openers;
    size_t families[N_FAMILIES];
    uint32_t seen[MOST_SLOTS / 32]; /* which listed words there were */
} Counts;

static int is_name(unsigned char byte) { return is_letter(byte) || is_digit(byte) || byte == '_'; }

/* Whether the sign there ends the mark of an option: not in f(a), U.S.A. or e.g. */
static int is_option(Text text, size_t sign) {
    if (sign < 1 || !is_option_letter(text.at[sign - 1])) return 0;
    if (sign >= 2) {
        unsigned char before = text.at[sign - 2];
        if (is_name(before) || before == '.') return 0;
        if (before == '(' && sign >= 3 && is_name(text.at[sign - 3])) return 0;
    }
    return !abbreviation_at(text, sign + 1);
}

/* "- ", "* ", "1. " or "1) " */
static int is_list_item(Text text, size_t line) {
    size_t place = line;
    if (place >= text.length) return 0;
    if (text.at[place] != '-' && text.at[place] != '*') {
        while (place < text.length && is_digit(text.at[place])) place++;
        if (place == line || place == text.length || (text.at[place] != '.' && text.at[place] != ')')) return 0;
    }
    return place + 1 < text.length && text.at[place + 1] == ' ';
}

static void count_line(Text text, size_t line, Counts *counts) {
    counts->option_lines += after_option_mark(text, line) != 0;
    counts->list_items += (size_t)is_list_item(text, line);
}

/* \name, and what stands between two dollars of one line. */
static size_t count_latex(Text text) {
    size_t found = 0, place = 0;
    while (place < text.length) {
        size_t begin = place++;
        if (text.at[begin] == '\\') {
            while (place < text.length && is_letter(text.at[place])) place++;
            found += place > begin + 1;
        } else if (text.at[begin] == '$') {
            size_t end = place;
            while (end < text.length && text.at[end] != '$' && text.at[end] != '\n') end++;
            if (end > place && end < text.length && text.at[end] == '$') {
                found++;
                place = end + 1;
            }
        }
    }
    return found;
}

static void count_word(const SurfaceRules *rules, Word *word, Counts *counts) {
    uint32_t slot;
    int32_t sets = word->length ? word_find(&rules->words, word, &slot) : -1;
    counts->words += word->length > 0;
    counts->word_bytes += word->length;
    word_begin(word);
    if (sets < 0) return;
    counts->common += sets & 1;
    if (counts->seen[slot / 32] >> slot % 32 & 1) return;
    counts->seen[slot / 32] |= 1u << slot % 32;
    for (int family = 0; family < N_FAMILIES; family++) counts->families[family] += sets >> (family + 1) & 1;
}

static void count_sign(Text text, size_t place, unsigned kind, Counts *counts) {
    unsigned char sign = text.at[place];
    counts->signs++;
    counts->code += (kind & CODE) != 0;
    counts->math += (kind & MATH) != 0;
    counts->question_marks += sign == '?';
    counts->quotes += sign == '"';
    counts->openers += sign == '\\' || sign == '$';
    if (is_option_sign(sign)) counts->options += (size_t)is_option(text, place);
    if (sign == '`' && place >= 2) counts->fences += text.at[place - 1] == '`' && text.at[place - 2] == '`';
}

static void count_all(const SurfaceRules *rules, Text text, Counts *counts) {
    Word word;
    unsigned before = 0;
    word_begin(&word);
    count_line(text, 0, counts);
    for (size_t place = 0; place < text.length; place++) {
        unsigned kind = rules->kinds[text.at[place]];
        if (kind & WORD) {
            word_read(&word, text.at[place]);
            counts->capitals += (kind & CAPITAL) != 0;
            counts->high += (kind & HIGH) != 0;
        } else {
            if (before & WORD) count_word(rules, &word, counts);
            if (kind & DIGIT) {
                counts->digits++;
                counts->numbers += !(before & DIGIT);
            } else if (kind & SIGN) {
                count_sign(text, place, kind, counts);
            } else if (text.at[place] == '\n') {
                counts->lines++;
                count_line(text, place + 1, counts);
            }
        }
        before = kind;
    }
    count_word(rules, &word, counts);
    counts->latex = counts->openers ? count_latex(text) : 0;
}

/* In the order of SURFACE_NAMES, and with its arithmetic: the same operations in the same order round alike. */
void surface_of(const SurfaceRules *rules, Text text, double chars, double scale, float *features) {
    Counts counts;
    memset(&counts, 0, sizeof counts);
    count_all(rules, text, &counts);
    size_t size = at_least_one(text.length), words = at_least_one(counts.words);
    double items = most((double)counts.list_items, rules->most_items);
    double questions = most((double)counts.question_marks, rules->most_questions);
    double values[N_SURFACE - N_FAMILIES] = {
        1.0,
        log1p(chars * scale) / 10.0,
        log1p((double)counts.words * scale) / 8.0,
        log1p((double)counts.lines * scale) / 5.0,
        most(share(counts.word_bytes, words), 12.0) / 12.0,
        log1p((double)counts.numbers) / 4.0,
        most(share(counts.digits, size) * 4.0, 1.0),
        most(share(counts.capitals, size) * 4.0, 1.0),
        most(share(counts.signs, size) * 4.0, 1.0),
        most(share(counts.high, size), 1.0),
        share(counts.common, words),
        log1p((double)counts.options) / 3.0,
        most((double)counts.option_lines, 10.0) / 10.0,
        counts.fences ? 1.0 : 0.0,
        most(share(counts.code, size) * 8.0, 1.0),
        most(share(counts.math, size) * 8.0, 1.0),
        log1p((double)counts.latex) / 4.0,
        log1p(questions) / rules->log_questions,
        text.length && text.at[text.length - 1] == '?' ? 1.0 : 0.0,
        log1p((double)counts.quotes) / 4.0,
        log1p(items) / rules->log_items,
        counts.words <= 6 ? 1.0 : 0.0,
    };
    for (int i = 0; i < N_SURFACE - N_FAMILIES; i++) *features++ = (float)values[i];
    for (int family = 0; family < N_FAMILIES; family++)
        *features++ = (float)most(share(counts.families[family], (size_t)rules->full[family]), 1.0);
}
