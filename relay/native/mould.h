/* The mould of an event, and what fits it: what mould.c and valve.c have in common.
 *
 * Everything is read between two pointers and nothing is written; no byte is looked at before it is known to be there.
 */
#ifndef RELAY_MOULD_H
#define RELAY_MOULD_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "eight.h"

#define DIGITS 7 /* hexadecimal digits of a chunk's size that are read */

typedef struct {
    span head, tail, middle;
    Py_ssize_t quotes; /* between the text and the tail */
    Py_ssize_t line;   /* how far into the tail its first line end is; below 0: it has none */
} mould;

static int
starts(const char *place, const char *end, span with)
{
    size_t size = (size_t)(with.end - with.begin);
    return (size_t)(end - place) >= size && memcmp(place, with.begin, size) == 0;
}

/* Where a text ends that begins here: at a quote, at a line end, at a backslash with nothing to escape, or at the end. */
static const char *
text_end(const char *place, const char *end)
{
    for (;;) {
        uint64_t eight, marks = 0;

        for (; IN_ORDER && !marks && end - place >= 8; place += marks ? first(marks) : 8) {
            memcpy(&eight, place, 8);
            marks = (zeros(eight ^ ONES * '"') | zeros(eight ^ ONES * '\\') | zeros(eight ^ ONES * '\n')) & ONES << 7;
        }
        while (place < end && *place != '"' && *place != '\n' && *place != '\\')
            place++;
        if (end - place < 2 || *place != '\\' || place[1] == '\n')
            return place;
        place += 2;
    }
}

/* The end of the event that begins here, and how long its text is; NULL if it is not of this kind. */
static const char *
event(const mould *kind, const char *place, const char *end, Py_ssize_t *size)
{
    const char *text, *rest, *line, *tail;
    Py_ssize_t quotes = 0;

    if (!starts(place, end, kind->head))
        return NULL;
    text = place + (kind->head.end - kind->head.begin);
    rest = text_end(text, end);
    *size = rest - text;
    if (kind->middle.begin == kind->middle.end)
        return starts(rest, end, kind->tail) ? rest + (kind->tail.end - kind->tail.begin) : NULL;
    if (kind->line < 0 || (line = memchr(rest, '\n', (size_t)(end - rest))) == NULL || line - rest < kind->line)
        return NULL;
    tail = line - kind->line;
    if (!starts(rest, tail, kind->middle) || !starts(tail, end, kind->tail))
        return NULL;
    for (; rest < tail; rest++)
        quotes += *rest == '"';
    return quotes == kind->quotes ? tail + (kind->tail.end - kind->tail.begin) : NULL;
}

/* As many such events as there are, one behind the other. */
static const char *
events(const mould *kind, const char *place, const char *end, Py_ssize_t *size)
{
    const char *next;
    Py_ssize_t one;

    while (place < end && (next = event(kind, place, end, &one)) != NULL && next > place) {
        place = next;
        *size += one;
    }
    return place;
}

/* Behind the line that says how long the chunk is that begins here; NULL if there is none, or nothing in the chunk. */
static const char *
line_end(const char *place, const char *end, Py_ssize_t *length)
{
    const char *next = place;

    *length = 0;
    while (next < end && next - place < DIGITS && value_of(*next) >= 0)
        *length = *length * 16 + value_of(*next++);
    return *length == 0 || end - next < 4 || next[0] != '\r' || next[1] != '\n' ? NULL : next + 2;
}

/* As many chunks of a chunked body as hold such events and nothing else. */
static const char *
chunks(const mould *kind, const char *place, const char *end, Py_ssize_t *size)
{
    span line = {place, place}; /* the last one with a size, which the next one often repeats */
    Py_ssize_t length = 0;

    for (;;) {
        const char *next = place, *close;
        Py_ssize_t seen = 0;

        if (length && starts(place, end, line))
            next += line.end - line.begin;
        else {
            next = line_end(place, end, &length);
            if (next == NULL)
                return place;
            line.begin = place;
            line.end = next;
        }
        if (end - next - 2 < length)
            return place;
        close = next + length;
        if (close[0] != '\r' || close[1] != '\n' || events(kind, next, close, &seen) != close)
            return place;
        place = close + 2;
        *size += seen;
    }
}

/* Copy the texts of all events from one place to another, where there is nothing else. Behind the last one. */
static char *
texts(const mould *kind, const char *place, const char *end, char *to)
{
    while (place < end) {
        const char *text = place + (kind->head.end - kind->head.begin);
        Py_ssize_t size;

        place = event(kind, place, end, &size);
        memcpy(to, text, (size_t)size);
        to += size;
    }
    return to;
}

/* The same where they may stand in chunks. */
static char *
all_texts(const mould *kind, const char *place, const char *end, char *to, int chunked)
{
    Py_ssize_t length;

    if (!chunked)
        return texts(kind, place, end, to);
    while (place < end) {
        place = line_end(place, end, &length);
        to = texts(kind, place, place + length, to);
        place += length + 2;
    }
    return to;
}

/* Append the texts of what was found to be there, `size` bytes of them: events, or chunks of them. 0, or -1 with an error. */
static int
append(PyObject *into, const mould *kind, const char *place, const char *end, Py_ssize_t size, int chunked)
{
    Py_ssize_t before = PyByteArray_GET_SIZE(into);

    if (PyByteArray_Resize(into, before + size) < 0)
        return -1;
    all_texts(kind, place, end, PyByteArray_AS_STRING(into) + before, chunked);
    return 0;
}

/* What texts are appended to: a bytearray, or nothing if it is None. 0, or -1 with an error. */
static int
target_of(PyObject *object, PyObject **into)
{
    if (object != Py_None && !PyByteArray_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "a bytearray is needed, or None");
        return -1;
    }
    *into = object == Py_None ? NULL : object;
    return 0;
}

static int
bytes_of(PyObject *object, span *found)
{
    if (!PyBytes_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "bytes are needed");
        return -1;
    }
    found->begin = PyBytes_AS_STRING(object);
    found->end = found->begin + PyBytes_GET_SIZE(object);
    return 0;
}

/* A relay.mould.Mould, which is a tuple. */
static int
mould_of(PyObject *object, mould *kind)
{
    const char *line;

    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != 4) {
        PyErr_SetString(PyExc_TypeError, "a mould is needed");
        return -1;
    }
    if (bytes_of(PyTuple_GET_ITEM(object, 0), &kind->head) < 0 || bytes_of(PyTuple_GET_ITEM(object, 1), &kind->tail) < 0
        || bytes_of(PyTuple_GET_ITEM(object, 2), &kind->middle) < 0)
        return -1;
    kind->quotes = PyLong_AsSsize_t(PyTuple_GET_ITEM(object, 3));
    if (kind->quotes == -1 && PyErr_Occurred())
        return -1;
    line = memchr(kind->tail.begin, '\n', (size_t)(kind->tail.end - kind->tail.begin));
    kind->line = line == NULL ? -1 : line - kind->tail.begin;
    return 0;
}

#endif
