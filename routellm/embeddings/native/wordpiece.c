/* BERT's tokenizer, as wordpiece.py has it: text -> ids of tokens. */
#include "objects.h"

#include <string.h>

enum { IN_WORD, SPACE, MARK, DROPPED };

typedef struct {
    PyObject_HEAD
    Words words, tails; /* all tokens; those that go on a word, without the prefix that says so */
    int32_t unknown;
    size_t most; /* characters; longer words are unknown */
    unsigned char kind[256], lower[256];
} WordPiece;

static int begins_character(unsigned char byte) { return (byte & 0xc0) != 0x80; }

/* The longest token at the front of `rest`: its id, or -1, and how many bytes it has. */
static int32_t longest_token(const Words *words, Text rest, size_t *length) {
    int32_t found = -1;
    uint32_t hash = HASH_START;
    for (size_t end = 0; end < rest.length && end < words->longest;) {
        hash = hash_on(hash, rest.at[end++]);
        if (end < rest.length && !begins_character(rest.at[end])) continue;
        int32_t token = words_find(words, (Text){rest.at, end}, hash, NULL);
        if (token < 0) continue;
        found = token;
        *length = end;
    }
    return found;
}

/* Adds the ids of a word's pieces, or none where a piece is missing. */
static void cut(const WordPiece *self, Text word, Ids *ids) {
    size_t characters = 0, before = ids->count, length = 0;
    for (size_t i = 0; i < word.length; i++) characters += (size_t)begins_character(word.at[i]);
    if (characters > self->most) return;
    for (const Words *words = &self->words; word.length; words = &self->tails) {
        int32_t token = longest_token(words, word, &length);
        if (token < 0) {
            ids->count = before;
            return;
        }
        if (token != self->unknown) ids->at[ids->count++] = token;
        word = (Text){word.at + length, word.length - length};
    }
}

#define MOST_WAITING 32

/* Words that are read and not looked up yet. */
typedef struct {
    Text words[MOST_WAITING];
    uint32_t hashes[MOST_WAITING];
    size_t count;
} Waiting;

static void look_up(const WordPiece *self, Waiting *waiting, Ids *ids) {
    for (size_t i = 0; i < waiting->count; i++) {
        int32_t token = words_find(&self->words, waiting->words[i], waiting->hashes[i], NULL);
        if (token >= 0)
            ids->at[ids->count++] = token;
        else
            cut(self, waiting->words[i], ids);
    }
    waiting->count = 0;
}

static void add_word(const WordPiece *self, Text word, uint32_t hash, Waiting *waiting, Ids *ids) {
    if (!word.length) return;
    if (waiting->count == MOST_WAITING) look_up(self, waiting, ids);
    words_ask_for(&self->words, hash);
    waiting->words[waiting->count] = word;
    waiting->hashes[waiting->count++] = hash;
}

void wordpiece_read(PyObject *object, Text text, unsigned char *letters, Ids *ids) {
    const WordPiece *self = (const WordPiece *)object;
    Waiting waiting = {.count = 0};
    Text word = {letters, 0};
    uint32_t hash = HASH_START;
    for (size_t place = 0; place <= text.length; place++) {
        unsigned char byte = place < text.length ? text.at[place] : ' ';
        int kind = self->kind[byte];
        if (kind == DROPPED) continue;
        if (kind == IN_WORD) {
            *letters = self->lower[byte];
            hash = hash_on(hash, *letters++);
            word.length++;
            continue;
        }
        add_word(self, word, hash, &waiting, ids);
        if (kind == MARK) {
            *letters = byte;
            add_word(self, (Text){letters++, 1}, hash_on(HASH_START, byte), &waiting, ids);
        }
        word = (Text){letters, 0};
        hash = HASH_START;
    }
    look_up(self, &waiting, ids);
}

static PyObject *wordpiece_ids(PyObject *object, PyObject *string) {
    Py_ssize_t length;
    const char *utf8 = PyUnicode_AsUTF8AndSize(string, &length);
    if (!utf8) return NULL;
    if (length > INT32_MAX / (Py_ssize_t)sizeof(Py_ssize_t)) return PyErr_NoMemory();
    Ids ids = {PyMem_Malloc((size_t)length * (sizeof(Py_ssize_t) + 1) + 1), 0};
    if (!ids.at) return PyErr_NoMemory();
    wordpiece_read(object, (Text){(const unsigned char *)utf8, (size_t)length}, (unsigned char *)(ids.at + length), &ids);
    PyObject *found = PyBytes_FromStringAndSize((const char *)ids.at, (Py_ssize_t)(ids.count * sizeof(Py_ssize_t)));
    PyMem_Free(ids.at);
    return found;
}

static void wordpiece_free(PyObject *object) {
    WordPiece *self = (WordPiece *)object;
    words_end(&self->words);
    words_end(&self->tails);
    free_object(object);
}

int is_wordpiece(PyObject *object) { return is_freed_by(object, wordpiece_free); }

static PyObject *wordpiece_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *vocabulary, *lower_case, *dropped, *marks, *prefix;
    int unknown, most;
    Text lowered, gone, alone, front;
    (void)names;
    if (!PyArg_ParseTuple(arguments, "O!SiiSSS", &PyDict_Type, &vocabulary, &prefix, &unknown, &most, &lower_case, &dropped,
                          &marks) ||
        read_bytes(lower_case, &lowered) || read_bytes(dropped, &gone) || read_bytes(marks, &alone) ||
        read_bytes(prefix, &front))
        return NULL;
    if (lowered.length != 256 || most < 0) {
        PyErr_SetString(PyExc_ValueError, "wants a table of 256 bytes, and no limit below 0");
        return NULL;
    }
    WordPiece *self = (WordPiece *)new_object(type);
    if (!self) return NULL;
    self->unknown = unknown;
    self->most = (size_t)most;
    memcpy(self->lower, lowered.at, 256);
    for (size_t i = 0; i < gone.length; i++) self->kind[gone.at[i]] = DROPPED;
    for (size_t i = 0; i < alone.length; i++) self->kind[alone.at[i]] = MARK;
    for (const char *space = " \t\n\r"; *space; space++) self->kind[(unsigned char)*space] = SPACE;
    if (read_words(vocabulary, (Text){front.at, 0}, &self->words) || read_words(vocabulary, front, &self->tails)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef wordpiece_methods[] = {
    {"ids", wordpiece_ids, METH_O, "ids(text: str) -> bytes\n\nThe ids of known tokens, as an array of intp."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot wordpiece_slots[] = {
    {Py_tp_new, (void *)wordpiece_new},
    {Py_tp_dealloc, (void *)wordpiece_free},
    {Py_tp_methods, wordpiece_methods},
    {Py_tp_doc, "WordPiece(vocabulary, prefix, unknown, most, lower, dropped, marks)"},
    {0, NULL},
};

PyType_Spec wordpiece_spec = {
    "routellm.embeddings._scan.WordPiece", sizeof(WordPiece), 0, Py_TPFLAGS_DEFAULT, wordpiece_slots,
};
