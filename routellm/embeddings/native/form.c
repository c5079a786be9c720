/* The form features, as `form.py` has them: those of the stem, of the options, and of the wording. */
#define PY_SSIZE_T_CLEAN
#include <Python.h> /* for PyOS_string_to_double, which is how `float` reads digits */

#include "scan.h"

#include <math.h>
#include <string.h>

/* ---- numbers: \d[\d,]*(?:\.\d+)? ---- */

#define MOST_NUMBERS 64
#define MOST_DIGITS 24 /* and a dot may be one of them */

typedef struct {
    size_t count, distinct, decimals;
    double values[MOST_NUMBERS];
} Numbers;

static double value_of(const char *digits, size_t length, int decimal) {
    if (!decimal && length <= 15) { /* exact in a double */
        int64_t whole = 0;
        for (size_t i = 0; i < length; i++) whole = whole * 10 + (digits[i] - '0');
        return (double)whole;
    }
    return PyOS_string_to_double(digits, NULL, NULL); /* digits with at most one dot after the first: it cannot fail */
}

/* Reads the number that begins at `place`, and returns where it ends. */
static size_t read_number(Text text, size_t place, Numbers *numbers) {
    char digits[MOST_DIGITS + 1];
    size_t length = 0;
    int decimal = 0;
    for (; place < text.length; place++) {
        unsigned char byte = text.at[place];
        if (byte == '.' && !decimal && place + 1 < text.length && is_digit(text.at[place + 1]))
            decimal = 1;
        else if (!is_digit(byte) && (byte != ',' || decimal))
            break;
        if (byte != ',' && length < MOST_DIGITS) digits[length++] = (char)byte;
    }
    digits[length] = '\0';
    numbers->values[numbers->count++] = value_of(digits, length, decimal);
    numbers->decimals += (size_t)decimal;
    return place;
}

/* ---- the stem: what stands before the first option ---- */

typedef struct {
    size_t words, word_bytes, long_words, distinct, portions, units;
    size_t sentences, titles, commas, hyphens, fractions;
    Numbers numbers;
} Stem;

static void count_words(const FormRules *rules, Text text, Pieces *pieces, Stem *stem) {
    Word word;
    word_begin(&word);
    for (size_t place = 0; place <= text.length; place++) {
        if (place < text.length && is_of_word(text.at[place])) {
            word_read(&word, text.at[place]);
        } else if (word.length) {
            int32_t sets = word_find(&rules->words, &word, NULL);
            stem->words++;
            stem->word_bytes += word.length;
            stem->long_words += word.length > rules->long_word;
            stem->distinct += (size_t)pieces_add(pieces, place - word.length, place, word.hash);
            stem->portions += sets > 0 && sets & 1;
            stem->units += sets > 0 && sets & 2;
            word_begin(&word);
        }
    }
}

/* `bytes.istitle`: every letter after a letter is small, every other one a capital, and there is one. */
static int is_title(const unsigned char *at, size_t length) {
    int cased = 0, inside = 0;
    for (size_t i = 0; i < length; i++) {
        if (is_letter(at[i])) {
            if (is_capital(at[i]) == inside) return 0;
            cased = inside = 1;
        } else {
            inside = 0;
        }
    }
    return cased;
}

/* Of what white space parts, all but the first. */
static size_t count_titles(Text text) {
    size_t found = 0, place = 0;
    for (int number = 0; place < text.length; number++) {
        while (place < text.length && is_space(text.at[place])) place++;
        size_t begin = place;
        while (place < text.length && !is_space(text.at[place])) place++;
        found += number > 0 && is_title(text.at + begin, place - begin);
    }
    return found;
}

static size_t count_fractions(Text text) {
    size_t found = 0;
    for (size_t place = 0; place + 2 < text.length; place++) {
        if (text.at[place + 1] != '/' || !is_digit(text.at[place]) || !is_digit(text.at[place + 2])) continue;
        found++;
        place += 2; /* 1/2/3 is one */
    }
    return found;
}

static void count_signs(Text text, Stem *stem) {
    size_t slashes = 0;
    stem->sentences = 1;
    for (size_t place = 0; place < text.length; place++) {
        unsigned char byte = text.at[place];
        stem->commas += byte == ',';
        stem->hyphens += byte == '-';
        slashes += byte == '/';
        if (byte == '.' || byte == '?' || byte == '!')
            stem->sentences += place + 1 < text.length && text.at[place + 1] == ' ';
    }
    stem->fractions = slashes ? count_fractions(text) : 0;
}

static void count_numbers(Text text, Numbers *numbers) {
    for (size_t place = 0; place < text.length && numbers->count < MOST_NUMBERS;)
        place = is_digit(text.at[place]) ? read_number(text, place, numbers) : place + 1;
    for (size_t i = 0; i < numbers->count; i++) {
        size_t before = 0;
        while (before < i && numbers->values[before] != numbers->values[i]) before++;
        numbers->distinct += before == i;
    }
}

static float *features_of_stem(Text text, const Stem *stem, float *features) {
    const Numbers *numbers = &stem->numbers;
    size_t words = at_least_one(stem->words);
    double largest = 0.0, sum = 0.0;
    for (size_t i = 0; i < numbers->count; i++) {
        double size = log1p(numbers->values[i]);
        if (size > largest) largest = size;
        sum += size;
    }
    double values[] = {
        log1p((double)text.length) / 10.0,
        log1p((double)stem->words) / 8.0,
        log1p((double)stem->sentences) / 4.0,
        most(share(stem->words, stem->sentences), 60.0) / 60.0,
        most(share(stem->word_bytes, words), 12.0) / 12.0,
        share(stem->long_words, words),
        share(stem->distinct, words),
        most(share(stem->titles, words) * 2.0, 1.0),
        most(share(stem->commas, words) * 4.0, 1.0),
        most(share(stem->hyphens, words) * 4.0, 1.0),
        log1p((double)numbers->count) / 4.0,
        log1p((double)numbers->distinct) / 4.0,
        most(largest, 20.0) / 20.0,
        most(sum / (double)at_least_one(numbers->count), 20.0) / 20.0,
        log1p((double)numbers->decimals) / 4.0,
        log1p((double)stem->fractions) / 4.0,
        most((double)stem->portions, 8.0) / 8.0,
        most((double)stem->units, 8.0) / 8.0,
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) *features++ = (float)values[i];
    return features;
}

static int of_stem(const FormRules *rules, Text text, float **features) {
    Stem stem;
    Pieces pieces;
    memset(&stem, 0, sizeof stem);
    if (pieces_begin(&pieces, text, text.length / 2 + 1, 1)) return -1; /* a word and the space after it take two bytes */
    count_words(rules, text, &pieces, &stem);
    pieces_end(&pieces);
    count_signs(text, &stem);
    count_numbers(text, &stem.numbers);
    stem.titles = count_titles(text);
    *features = features_of_stem(text, &stem, *features);
    return 0;
}

/* ---- the options, each the rest of a line after its mark, without the space around it ---- */

typedef struct {
    size_t count, bytes, longest, shortest, words, word_bytes, digits;
} Options;

static void count_option(Text text, size_t begin, size_t end, Options *options) {
    unsigned char before = ' ';
    while (begin < end && is_space(text.at[begin])) begin++;
    while (begin < end && is_space(text.at[end - 1])) end--;
    size_t length = end - begin;
    if (length > options->longest) options->longest = length;
    if (!options->count || length < options->shortest) options->shortest = length;
    options->count++;
    options->bytes += length;
    for (; begin < end; begin++) {
        unsigned char byte = text.at[begin];
        options->digits += (size_t)is_digit(byte);
        options->word_bytes += (size_t)is_of_word(byte);
        options->words += is_of_word(byte) && !is_of_word(before);
        before = byte;
    }
}

static size_t line_end(Text text, size_t place) {
    const unsigned char *end = place < text.length ? memchr(text.at + place, '\n', text.length - place) : NULL;
    return end ? (size_t)(end - text.at) : text.length;
}

/* Where the first option begins; the text's length where there is none. */
static size_t count_options(Text text, Options *options) {
    size_t first = text.length;
    memset(options, 0, sizeof *options);
    for (size_t line = 0; line < text.length;) {
        size_t begin = after_option_mark(text, line), end = line_end(text, line);
        if (begin) {
            if (!options->count) first = line;
            count_option(text, begin, end, options);
        }
        line = end + 1;
    }
    return first;
}

static float *of_options(Text text, const Options *options, float *features) {
    size_t total = at_least_one(options->bytes);
    double values[6] = {0.0};
    if (options->count) {
        values[0] = log1p(share(options->bytes, options->count)) / 6.0;
        values[1] = log1p((double)options->longest) / 6.0;
        values[2] = log1p((double)options->shortest) / 6.0;
        values[3] = most(share(options->word_bytes, at_least_one(options->words)), 12.0) / 12.0;
        values[4] = share(options->digits, total);
        values[5] = share(options->bytes, text.length);
    }
    for (int i = 0; i < 6; i++) *features++ = (float)values[i];
    return features;
}

/* ---- the wording of the whole: phrases without regard to capitals, and negations in capitals ---- */

static int phrase_at(Text text, size_t place, Text phrase) {
    if (text.length - place < phrase.length) return 0;
    for (size_t i = 0; i < phrase.length; i++)
        if (lower(text.at[place + i]) != phrase.at[i]) return 0;
    return 1;
}

static void count_phrases(const FormRules *rules, Text text, size_t groups[N_GROUPS]) {
    size_t free_from[MOST_PHRASES] = {0}; /* occurrences of a phrase don't overlap */
    for (size_t place = 0; place + 1 < text.length; place++) {
        uint32_t likely = rules->first[lower(text.at[place])] & rules->second[lower(text.at[place + 1])];
        for (int i = 0; likely; i++, likely >>= 1) {
            const struct phrase *phrase = &rules->phrases[i];
            if (!(likely & 1) || place < free_from[i] || !phrase_at(text, place, phrase->text)) continue;
            groups[phrase->group]++;
            free_from[i] = place + phrase->text.length;
        }
    }
}

static int has_negation(const FormRules *rules, Text text) {
    size_t begin = 0;
    uint32_t hash = HASH_START;
    for (size_t place = 0; place <= text.length; place++) {
        if (place < text.length && is_letter(text.at[place])) {
            hash = hash_on(hash, text.at[place]);
            continue;
        }
        if (place > begin && words_find(&rules->negations, (Text){text.at + begin, place - begin}, hash, NULL) >= 0) return 1;
        begin = place + 1;
        hash = HASH_START;
    }
    return 0;
}

static void of_wording(const FormRules *rules, Text text, float *features) {
    size_t groups[N_GROUPS] = {0};
    count_phrases(rules, text, groups);
    *features++ = groups[ANY_OF_OPTIONS] ? 1.0f : 0.0f;
    *features++ = has_negation(rules, text) ? 1.0f : 0.0f;
    *features++ = (float)(most((double)groups[COUNTED_STATEMENTS], 4.0) / 4.0);
    *features++ = groups[ANY_REFERENCE] ? 1.0f : 0.0f;
}

int form_of(const FormRules *rules, Text text, float *features) {
    Options options;
    Text stem = {text.at, count_options(text, &options)};
    if (of_stem(rules, stem, &features)) return -1;
    of_wording(rules, text, of_options(text, &options, features));
    return 0;
}
