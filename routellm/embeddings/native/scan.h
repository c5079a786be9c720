/* What the files of the compiled kernel share: text as bytes, tables of words, and sets of what a text holds.
 *
 * Nothing keeps state between calls: tables are built once and then only read. No byte beyond a text's length is read.
 */
#ifndef ROUTELLM_SCAN_H
#define ROUTELLM_SCAN_H

#include <stddef.h>
#include <stdint.h>

/* UTF-8 that is looked at, and never changed. */
typedef struct {
    const unsigned char *at;
    size_t length;
} Text;

/* Asks for memory that is soon read: in a server other code has taken the caches since the last prompt, and what is looked up
 * for a prompt lies all over its tables. */
#if defined(__GNUC__) || defined(__clang__)
#define SOON(address) __builtin_prefetch(address)
#else
#define SOON(address) ((void)(address))
#endif

/* A loop over whole numbers that a newer processor does many at a time: compiled for it besides, and chosen when it runs. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

/* ---- hashes: FNV-1a, a byte at a time, so that a word is hashed while it is read ---- */

#define HASH_START 2166136261u

static inline uint32_t hash_on(uint32_t hash, unsigned char byte) { return (hash ^ byte) * 16777619u; }

/* ---- ASCII; a byte of a character beyond it is none of these ---- */

static inline int is_capital(unsigned char byte) { return byte >= 'A' && byte <= 'Z'; }
static inline int is_small(unsigned char byte) { return byte >= 'a' && byte <= 'z'; }
static inline int is_letter(unsigned char byte) { return is_small(byte | 0x20); }
static inline int is_digit(unsigned char byte) { return byte >= '0' && byte <= '9'; }
static inline unsigned char lower(unsigned char byte) { return is_capital(byte) ? byte | 0x20 : byte; }
static inline int is_of_word(unsigned char byte) { return is_letter(byte) || byte >= 0x80; }

/* What `bytes.split` and `bytes.strip` take for white space. */
static inline int is_space(unsigned char byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

/* "A." begins an option, "e.g." and "U.S.A." don't: whether a letter and a dot follow at `place`. */
static inline int abbreviation_at(Text text, size_t place) {
    return place + 1 < text.length && is_letter(text.at[place]) && text.at[place + 1] == '.';
}

static inline int is_option_letter(unsigned char byte) { return lower(byte) >= 'a' && lower(byte) <= 'j'; }
static inline int is_option_sign(unsigned char byte) { return byte == '.' || byte == ')' || byte == ':'; }

/* The place after "A." or "(A)" at the start of a line, where that is an option; otherwise 0. */
size_t after_option_mark(Text text, size_t line);

/* ---- words -> numbers: built once, then only read ---- */

#define WORD_HEAD 8 /* bytes */

typedef struct {
    struct word_slot {
        uint64_t head;   /* the first bytes of the word, and zeros after a shorter one: most words are known by these alone */
        uint32_t length; /* 0 where the slot is free */
        int32_t number;
    } *slots;
    uint32_t *places; /* of each slot: where in `rest` the other bytes of its word are */
    uint32_t mask;    /* one less than the number of slots, a power of two */
    unsigned char *rest;
    size_t used, room;
    size_t longest; /* bytes */
} Words;

int words_begin(Words *words, size_t count, size_t bytes); /* -1 where memory is short, or there are too many words */
void words_add(Words *words, Text word, int32_t number);
void words_end(Words *words);

/* The number of a word, or -1 where there is none; `slot`, if not NULL, becomes a number of its own from 0 to `mask`. */
int32_t words_find(const Words *words, Text word, uint32_t hash, uint32_t *slot);

/* Some time before words_find. */
void words_ask_for(const Words *words, uint32_t hash);

/* ---- one word of a text, in small letters, as it is read ---- */

#define MOST_OF_WORD 32 /* bytes that are kept; tables of longer words are refused */

typedef struct {
    unsigned char bytes[MOST_OF_WORD];
    size_t length;
    uint32_t hash;
} Word;

static inline void word_begin(Word *word) {
    word->length = 0;
    word->hash = HASH_START;
}

static inline void word_read(Word *word, unsigned char byte) {
    byte = lower(byte);
    if (word->length < MOST_OF_WORD) word->bytes[word->length] = byte;
    word->length++;
    word->hash = hash_on(word->hash, byte);
}

static inline int32_t word_find(const Words *words, const Word *word, uint32_t *slot) {
    if (word->length > words->longest) return -1; /* `longest` is at most MOST_OF_WORD */
    return words_find(words, (Text){word->bytes, word->length}, word->hash, slot);
}

/* ---- the distinct pieces of one text ---- */

typedef struct {
    struct piece_slot {
        uint32_t hash, end, length; /* `end` is 0 where the slot is free */
    } *slots;
    uint32_t mask;
    Text text;
    int any_case; /* whether capitals equal small letters; the hashes must agree */
} Pieces;

int pieces_begin(Pieces *pieces, Text text, size_t most, int any_case); /* room for `most` pieces; -1 where memory is short */
int pieces_add(Pieces *pieces, size_t start, size_t end, uint32_t hash); /* 1 where it is new, 0 where it was there */
void pieces_end(Pieces *pieces);

/* ---- features: what is counted is described in surface.py and form.py, whose results these equal to the bit ---- */

#define MOST_SLOTS 1024 /* of a table whose words are told apart in a text; tables of more words are refused */

#define N_SURFACE 32
#define N_FAMILIES 10
#define N_FORM 28
#define MOST_PHRASES 32

typedef struct {
    Words words; /* numbers are bit sets: 1 for common words, 2 << family for those of a family */
    int full[N_FAMILIES];
    unsigned char kinds[256]; /* bit sets; see surface.c */
    int most_items, most_questions;
    double log_items, log_questions;
} SurfaceRules;

void surface_kinds(SurfaceRules *rules, Text code, Text math);
void surface_of(const SurfaceRules *rules, Text text, double chars, double scale, float *features);

enum { ANY_OF_OPTIONS, COUNTED_STATEMENTS, ANY_REFERENCE, N_GROUPS };

typedef struct {
    Words words;     /* numbers are bit sets: 1 for portions, 2 for units */
    Words negations; /* in capitals */
    struct phrase {
        Text text;
        int group;
    } phrases[MOST_PHRASES];
    int n_phrases;
    uint32_t first[256], second[256]; /* bit sets of the phrases that have this byte first, second */
    size_t long_word; /* bytes; longer words are long */
} FormRules;

int form_of(const FormRules *rules, Text text, float *features); /* -1 where memory is short */

static inline double share(size_t part, size_t of) { return (double)part / (double)of; }
static inline double most(double value, double limit) { return value < limit ? value : limit; }
static inline size_t at_least_one(size_t count) { return count ? count : 1; }

#endif
