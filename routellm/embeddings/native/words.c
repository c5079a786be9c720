/* Tables of words, and sets of the pieces of one text: open addressing with linear probing, never more than half full. */
#include "scan.h"

#include <stdlib.h>
#include <string.h>

static uint32_t slot_of(uint32_t hash, uint32_t mask) { return (hash ^ hash >> 15) & mask; }

/* The number of slots for `count` entries, less one; 0 where there are too many. */
static uint32_t mask_for(size_t count) {
    uint32_t slots = 16;
    if (count > 1u << 29) return 0;
    while (slots < 2 * count) slots *= 2;
    return slots - 1;
}

int words_begin(Words *words, size_t count, size_t bytes) {
    memset(words, 0, sizeof *words);
    words->mask = mask_for(count);
    words->room = bytes;
    if (words->mask == 0 || bytes > UINT32_MAX) return -1;
    words->slots = calloc((size_t)words->mask + 1, sizeof *words->slots);
    words->places = calloc((size_t)words->mask + 1, sizeof *words->places);
    words->rest = malloc(bytes + 1);
    return words->slots && words->places && words->rest ? 0 : -1;
}

void words_end(Words *words) {
    free(words->slots);
    free(words->places);
    free(words->rest);
    words->slots = NULL;
    words->places = NULL;
    words->rest = NULL;
}

static uint64_t head_of(Text word) {
    uint64_t head = 0;
    memcpy(&head, word.at, word.length < WORD_HEAD ? word.length : WORD_HEAD);
    return head;
}

void words_add(Words *words, Text word, int32_t number) {
    uint32_t hash = HASH_START, slot;
    if (!word.length || words->used + word.length > words->room) return; /* more than was announced */
    for (size_t i = 0; i < word.length; i++) hash = hash_on(hash, word.at[i]);
    slot = slot_of(hash, words->mask);
    while (words->slots[slot].length) slot = (slot + 1) & words->mask;
    words->slots[slot] = (struct word_slot){head_of(word), (uint32_t)word.length, number};
    words->places[slot] = (uint32_t)words->used;
    if (word.length > WORD_HEAD) {
        memcpy(words->rest + words->used, word.at + WORD_HEAD, word.length - WORD_HEAD);
        words->used += word.length - WORD_HEAD;
    }
    if (word.length > words->longest) words->longest = word.length;
}

int32_t words_find(const Words *words, Text word, uint32_t hash, uint32_t *at) {
    const uint64_t head = head_of(word);
    for (uint32_t slot = slot_of(hash, words->mask); words->slots[slot].length; slot = (slot + 1) & words->mask) {
        const struct word_slot *there = &words->slots[slot];
        if (there->head != head || there->length != word.length) continue;
        if (word.length > WORD_HEAD &&
            memcmp(words->rest + words->places[slot], word.at + WORD_HEAD, word.length - WORD_HEAD))
            continue;
        if (at) *at = slot;
        return there->number;
    }
    return -1;
}

void words_ask_for(const Words *words, uint32_t hash) { SOON(&words->slots[slot_of(hash, words->mask)]); }

int pieces_begin(Pieces *pieces, Text text, size_t most, int any_case) {
    pieces->text = text;
    pieces->any_case = any_case;
    pieces->mask = mask_for(most);
    pieces->slots = pieces->mask ? calloc((size_t)pieces->mask + 1, sizeof *pieces->slots) : NULL;
    return pieces->slots ? 0 : -1;
}

void pieces_end(Pieces *pieces) { free(pieces->slots); }

static int same(const Pieces *pieces, const unsigned char *one, const unsigned char *other, size_t length) {
    if (!pieces->any_case) return !memcmp(one, other, length);
    for (size_t i = 0; i < length; i++)
        if (lower(one[i]) != lower(other[i])) return 0;
    return 1;
}

int pieces_add(Pieces *pieces, size_t start, size_t end, uint32_t hash) {
    uint32_t slot = slot_of(hash, pieces->mask), length = (uint32_t)(end - start);
    const unsigned char *text = pieces->text.at;
    for (; pieces->slots[slot].end; slot = (slot + 1) & pieces->mask) {
        struct piece_slot there = pieces->slots[slot];
        if (there.hash == hash && there.length == length && same(pieces, text + there.end - length, text + start, length))
            return 0;
    }
    pieces->slots[slot] = (struct piece_slot){hash, (uint32_t)end, length};
    return 1;
}

size_t after_option_mark(Text text, size_t line) {
    size_t place = line;
    if (place < text.length && text.at[place] == '(') place++;
    if (place + 1 >= text.length || !is_option_letter(text.at[place]) || !is_option_sign(text.at[place + 1])) return 0;
    return abbreviation_at(text, place + 2) ? 0 : place + 2;
}
