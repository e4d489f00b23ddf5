/* Objects of a JSON body that are nothing but text: see plain.c. */
#ifndef RELAY_PLAIN_H
#define RELAY_PLAIN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "text.h"

#define MOST_FIELDS 64

typedef struct {
    int first, last; /* places among those of a plan */
} fields;

/* One of relay.outline.Field. */
typedef struct {
    span name;
    PyObject *words; /* its `inner`, if there are any and they are bytes; NULL if not */
    fields inner;    /* those, if they are fields */
    int forms, tokens;
} field;

typedef struct {
    field fields[MOST_FIELDS];
    fields outer;
} plan;

/* Make one of a tuple of relay.outline.Field, which must live longer. 0, or -1 with an error. */
int relay_plan(plan *to, PyObject *from);

/* Where an object ends that begins here, if it is as planned; NULL if not.
 *
 * Then `tokens` are what it counts for, and `labelled` whether a string in it begins with one of the `labels`; else nothing
 * can be said of either. */
const char *relay_plain(
    const char *begin, const char *end, const plan *what, PyObject *labels, Py_ssize_t *tokens, int *labelled
);

#endif
