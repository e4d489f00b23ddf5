/* A JSON body without its long texts: see relay/outline.py, which says what for.
 *
 * Everything is read between two pointers; what is written is never longer than what was read. Nothing is judged here but
 * the inside of the texts that are left out: all else stays as it is, for a real parser to read.
 */
#include "module.h"
#include "eight.h"

#define DEEPEST 64 /* levels that are told apart; a body with more is not for here */
#define BLOCK 64   /* bytes that are looked at together */

typedef struct {
    const char *begin, *end; /* begin is NULL: there is none */
} span;

typedef struct {
    span key; /* the one whose value comes */
    int object;
} level;

typedef struct {
    const char *end;    /* the quote that ends it; NULL: there is none */
    Py_ssize_t escapes; /* of one character each */
    Py_ssize_t more;    /* bytes beside the first one of its characters */
    int odd;            /* has what is not read here: escapes by number, or what must not be in a string */
} text;

/* How many bytes a character takes that begins here and is not ASCII; 0 if it is not UTF-8. */
static int
width(const unsigned char *at, const unsigned char *end)
{
    int size = *at >= 0xF0 ? 4 : *at >= 0xE0 ? 3 : 2, more;

    if (*at < 0xC2 || *at > 0xF4 || end - at < size)
        return 0;
    for (more = 1; more < size; more++)
        if ((at[more] & 0xC0) != 0x80)
            return 0;
    if ((*at == 0xE0 && at[1] < 0xA0) || (*at == 0xED && at[1] > 0x9F) || (*at == 0xF0 && at[1] < 0x90)
        || (*at == 0xF4 && at[1] > 0x8F))
        return 0;
    return size;
}

/* Bytes that are compared at once. Above 0x7F they are below 0. */
typedef signed char wide __attribute__((vector_size(16)));

/* How many bytes begin here that a string may hold as they are, all of one byte each. */
static Py_ssize_t
run_of(const unsigned char *begin, const unsigned char *end)
{
    const wide none = {0}, space = none + 0x20, quote = none + '"', escape = none + '\\';
    const unsigned char *at = begin;

    for (; end - at >= BLOCK; at += BLOCK) {
        wide marks = none, some;
        uint64_t halves[2];
        size_t place;

        for (place = 0; place < BLOCK; place += sizeof some) {
            memcpy(&some, at + place, sizeof some);
            marks |= (some < space) | (some == quote) | (some == escape);
        }
        memcpy(halves, &marks, sizeof halves);
        if (halves[0] | halves[1])
            break;
    }
    return at - begin;
}

/* Where the first byte is that a string may not hold as it is. */
static const unsigned char *
mark(const unsigned char *at, const unsigned char *end)
{
    int steps = 0;

    while (IN_ORDER && end - at >= 8) {
        uint64_t eight, marks;

        memcpy(&eight, at, 8);
        marks = (eight | zeros(eight ^ ONES * '"') | zeros(eight ^ ONES * '\\') | ((eight - ONES * 0x20) & ~eight)) & ONES << 7;
        if (marks)
            return at + first(marks);
        at += 8;
        if (++steps == 4) {
            /* Far between: look at more of them together. */
            at += run_of(at, end);
            steps = 0;
        }
    }
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return at;
}

/* A string whose first byte is here, up to its end. */
static text
text_at(const char *begin, const char *end)
{
    const unsigned char *at = (const unsigned char *)begin, *last = (const unsigned char *)end;
    text found = {NULL, 0, 0, 0};

    while ((at = mark(at, last)) < last && *at != '"') {
        if (*at == '\\') {
            if (last - at < 2)
                return found;
            switch (at[1]) {
            case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
                break;
            default:
                found.odd = 1;
            }
            found.escapes++;
            at += 2;
        }
        else if (*at < 0x20) {
            found.odd = 1;
            at++;
        }
        else
            while (at < last && *at >= 0x80) {
                int size = width(at, last);

                found.odd |= size == 0;
                size += size == 0;
                found.more += size - 1;
                at += size;
            }
    }
    if (at < last)
        found.end = (const char *)at;
    return found;
}

static int
among(span key, PyObject *names)
{
    Py_ssize_t place, size = key.end - key.begin;

    for (place = 0; key.begin != NULL && place < PyTuple_GET_SIZE(names); place++) {
        PyObject *name = PyTuple_GET_ITEM(names, place);
        if (PyBytes_GET_SIZE(name) == size && memcmp(PyBytes_AS_STRING(name), key.begin, (size_t)size) == 0)
            return 1;
    }
    return 0;
}

/* As relay.kit.estimate_tokens. */
static Py_ssize_t
tokens_of(const char *begin, text found)
{
    Py_ssize_t length = found.end - begin - found.more - found.escapes;
    double wide = (double)found.more / 2;

    if (!found.more)
        return (length + 3) / 4;
    return (Py_ssize_t)(0.72 * wide + ((double)length - wide) / 4) + 1;
}

static int
blank(char byte)
{
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

typedef struct {
    PyObject *fields, *texts, *bulk, *spot;
    Py_ssize_t longest;
    Py_ssize_t tokens;
    const char *spot_begin, *spot_end;
    int spots;
} search;

/* Write the body without its long texts. How long it is then; below 0 if it is not for here. */
static Py_ssize_t
cut(search *wanted, const char *begin, const char *end, char *out)
{
    level levels[DEEPEST];
    const char *place = begin, *copied = begin, *next;
    char *to = out;
    int depth = 0;
    text found;

    memset(&levels[0], 0, sizeof levels[0]);
    while (place < end) {
        switch (*place) {
        case '{':
        case '[':
            if (++depth == DEEPEST)
                return -1;
            memset(&levels[depth], 0, sizeof levels[depth]);
            levels[depth].object = *place++ == '{';
            break;
        case '}':
        case ']':
            if (--depth < 0)
                return -1;
            place++;
            break;
        case ',':
            levels[depth].key.begin = NULL;
            place++;
            break;
        case '"':
            found = text_at(++place, end);
            if (found.end == NULL)
                return -1;
            next = found.end + 1;
            while (next < end && blank(*next))
                next++;
            if (next < end && *next == ':') {
                if (found.escapes)
                    return -1; /* A key that may be spelled otherwise. */
                levels[depth].key.begin = place;
                levels[depth].key.end = found.end;
                place = next + 1;
                break;
            }
            if (depth == 1 && among(levels[1].key, wanted->spot)) {
                wanted->spots++;
                wanted->spot_begin = place - 1;
                wanted->spot_end = found.end + 1;
            }
            else if (found.end - place >= wanted->longest && depth >= 1 && among(levels[1].key, wanted->fields)) {
                span key = levels[depth].object ? levels[depth].key : (span){NULL, NULL};
                int counts = among(key, wanted->texts);

                if (counts || among(key, wanted->bulk)) {
                    if (found.odd)
                        return -1;
                    if (counts)
                        wanted->tokens += tokens_of(place, found);
                    memcpy(to, copied, (size_t)(place - copied));
                    to += place - copied;
                    copied = found.end;
                }
            }
            place = next;
            break;
        default:
            place++;
        }
    }
    if (copied == begin)
        return -1;
    memcpy(to, copied, (size_t)(end - copied));
    return to + (end - copied) - out;
}

static int
names(PyObject *object)
{
    Py_ssize_t place;

    if (!PyTuple_Check(object))
        return 0;
    for (place = 0; place < PyTuple_GET_SIZE(object); place++)
        if (!PyBytes_Check(PyTuple_GET_ITEM(object, place)))
            return 0;
    return 1;
}

/* (raw, longest, fields, texts, bulk, spot) -> None | (the body without them, their tokens, the spot's begin and end) */
static PyObject *
outline(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    search wanted;
    PyObject *out;
    const char *begin;
    Py_ssize_t size;

    memset(&wanted, 0, sizeof wanted);
    if (count != 6 || !PyBytes_Check(args[0]) || !names(args[2]) || !names(args[3]) || !names(args[4]) || !names(args[5])) {
        PyErr_SetString(PyExc_TypeError, "bytes, a number and four tuples of bytes are needed");
        return NULL;
    }
    wanted.longest = PyLong_AsSsize_t(args[1]);
    if (wanted.longest == -1 && PyErr_Occurred())
        return NULL;
    wanted.fields = args[2];
    wanted.texts = args[3];
    wanted.bulk = args[4];
    wanted.spot = args[5];
    begin = PyBytes_AS_STRING(args[0]);
    out = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(args[0]));
    if (out == NULL)
        return NULL;
    size = cut(&wanted, begin, begin + PyBytes_GET_SIZE(args[0]), PyBytes_AS_STRING(out));
    if (size < 0 || wanted.spots > 1) {
        Py_DECREF(out);
        Py_RETURN_NONE;
    }
    if (_PyBytes_Resize(&out, size) < 0)
        return NULL;
    if (!wanted.spots)
        wanted.spot_begin = wanted.spot_end = begin;
    return Py_BuildValue("Nnnn", out, wanted.tokens, wanted.spot_begin - begin, wanted.spot_end - begin);
}

static PyMethodDef functions[] = {
    {"outline", (PyCFunction)(void (*)(void))outline, METH_FASTCALL, "See relay.outline."},
    {NULL, NULL, 0, NULL},
};

int
relay_add_outline(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
