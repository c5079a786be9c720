/* What the types of the compiled kernel share: how they are made, and how they read what Python gives them. */
#ifndef ROUTELLM_OBJECTS_H
#define ROUTELLM_OBJECTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "scan.h"

/* An object of a type without a dictionary, all zeros; and what every type does last of all with it. */
PyObject *new_object(PyTypeObject *type);
void free_object(PyObject *self);

/* The readers return -1 with an exception set. What they read is borrowed: the object has to stay. */
int read_bytes(PyObject *object, Text *text);

/* A table of the words of a dict[bytes, int]. Of words that begin with `prefix`, only what follows it; of others, nothing. */
int read_words(PyObject *numbers, Text prefix, Words *words);

/* The same for all words of a list that is looked up while a text is read. */
int read_listed_words(PyObject *numbers, Words *words);

/* An array's memory: `kind` is the format's letter, as `struct` and `array` have them. */
int read_array(PyObject *array, char kind, Py_buffer *view);

/* The same for so many floats in one dimension, and for rows of them in two. */
int read_row(PyObject *array, size_t width, Py_buffer *view);
int read_rows(PyObject *array, size_t rows, size_t width, Py_buffer *view);

/* A bytearray for so many floats, and where they are. */
PyObject *new_floats(Py_ssize_t count, float **at);

int wants(const char *what, Py_ssize_t given, Py_ssize_t wanted);

/* Whether an object is of the type that is freed so: each type here has a function of its own for that. */
int is_freed_by(PyObject *object, destructor free);

extern PyType_Spec wordpiece_spec, rows_spec, surface_spec, form_spec, trees_spec, reader_spec, linear_spec, parts_spec;

/* ---- what the types do for each other ---- */

int is_wordpiece(PyObject *object);
int is_rows(PyObject *object);
int is_surface(PyObject *object);

typedef struct {
    Py_ssize_t *at;
    size_t count;
} Ids;

/* Adds the ids of a text, for which there must be room for one a byte. `letters` has room for the text. */
void wordpiece_read(PyObject *wordpiece, Text text, unsigned char *letters, Ids *ids);

size_t rows_width(PyObject *rows);
int rows_add_up(PyObject *rows, Ids ids, float *out); /* -1 with an exception set */

const SurfaceRules *surface_rules(PyObject *surface);

int is_form(PyObject *object);
const FormRules *form_rules(PyObject *form);

int is_trees(PyObject *object);
size_t trees_need(PyObject *trees);                          /* so many features */
double trees_add_up(PyObject *trees, const float *features); /* one after another */

/* One prompt as it is read. The readers' and the scores' methods take it as three arguments: a text to be cut into tokens, the
 * bytes that are counted (None for the text itself in one spelling, which must be of ASCII), and how many times longer the whole is. */
typedef struct {
    Text text, plain; /* `plain` is there once it was read */
    double scale;
    Ids ids; /* and after them, room for the text */
} Reading;

int is_reader(PyObject *object);
size_t reader_width(PyObject *reader);

/* What `self` makes of a prompt that was read and of its vector; -1 with an exception set. */
typedef int (*Score)(PyObject *self, const Reading *reading, float *vector, double *sum);

/* A score's method: reads a prompt, scores it, and leaves nothing behind. `vector` gets room for so many floats more. */
PyObject *reader_score(PyObject *reader, PyObject *const *given, Py_ssize_t count, size_t more, Score score, PyObject *self);

double dot(const float *weights, const float *vector, size_t width);

/* A text of ASCII, less the space around it and at most so long, in one spelling: how long that is. `out` has room for it. */
size_t spell(Text text, size_t most, unsigned char *out);

PyObject *says_again(PyObject *module, PyObject *const *given, Py_ssize_t count);
PyObject *word_counts(PyObject *module, PyObject *const *given, Py_ssize_t count);
PyObject *plain_text(PyObject *module, PyObject *const *given, Py_ssize_t count);
PyObject *single_spaces(PyObject *module, PyObject *string);
PyObject *respell(PyObject *module, PyObject *const *given, Py_ssize_t count);

#endif
