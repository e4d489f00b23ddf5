/* A JSON body without its long texts: see relay/outline.py, which says what for.
 *
 * Everything is read between two pointers; what is written is never longer than what was read. Nothing is judged here but
 * the inside of the texts that are left out: all else stays as it is, for a real parser to read.
 */
#include "module.h"
#include "plain.h"

#define DEEPEST 64   /* levels that are told apart; a body with more is not for here */
#define BEGINNING 64 /* bytes of a string by which words are told from what is none */

typedef struct {
    span key; /* the one whose value comes */
    int object;
} level;

/* Whether a string begins like a text: with blanks in it, or letters beyond ASCII. Neither base64 nor addresses do. */
static int
wordy(const char *begin, const char *end)
{
    const unsigned char *at = (const unsigned char *)begin, *last = (const unsigned char *)end;

    if (last - at > BEGINNING)
        last = at + BEGINNING;
    for (; at < last; at++)
        if (*at < '!' || *at > '~' || (*at == '\\' && at[1] != '/'))
            return 1;
    return 0;
}

typedef struct {
    PyObject *fields, *texts, *bulk, *lists, *labels, *items; /* relay.outline.Texts, */
    plan plain;                                               /* and the last of it */
    PyObject *spot, *known;
    Py_ssize_t longest;
    /* What was found: */
    Py_ssize_t tokens;
    span model;
    span list;           /* the value of one of `lists` */
    Py_ssize_t number;   /* which of `known` it is; below 0: none */
    int models, listed, labelled;
} search;

/* Which of the lists that are known stands here; below 0 if none does. */
static Py_ssize_t
known_at(PyObject *known, const char *begin, const char *end)
{
    Py_ssize_t place;

    for (place = 0; place < PyTuple_GET_SIZE(known); place++) {
        PyObject *one = PyTuple_GET_ITEM(known, place);
        Py_ssize_t size = PyBytes_GET_SIZE(one);
        /* What takes its place is two bytes long. */
        if (size >= 2 && size <= end - begin && memcmp(PyBytes_AS_STRING(one), begin, (size_t)size) == 0)
            return place;
    }
    return -1;
}

/* Copy what stays of the body up to here, and go on from `next`. */
static char *
keep(char *to, const char **copied, const char *place, const char *next)
{
    memcpy(to, *copied, (size_t)(place - *copied));
    to += place - *copied;
    *copied = next;
    return to;
}

/* Behind a key of the outermost object. Where to go on: behind its value, if that is a list that is known, and the list
 * is an empty one then. NULL if the body is not for here. */
static const char *
outermost(search *wanted, span key, const char *place, const char *end, char **to, const char **copied)
{
    if (among(key, wanted->spot) && wanted->models++)
        return NULL; /* Nobody knows which one counts. */
    if (!among(key, wanted->lists))
        return place;
    if (wanted->listed++)
        return NULL;
    while (place < end && blank(*place))
        place++;
    if (place == end || *place != '[')
        return place;
    wanted->list.begin = place;
    wanted->number = known_at(wanted->known, place, end);
    if (wanted->number < 0)
        return place;
    *to = keep(*to, copied, place, place + PyBytes_GET_SIZE(PyTuple_GET_ITEM(wanted->known, wanted->number)));
    memcpy(*to, "[]", 2);
    *to += 2;
    wanted->list.end = *copied;
    return *copied;
}

/* An element of one of the `items`, whose first byte is here. Behind it, if nothing is left of it but an empty object; at
 * its first byte, if not. */
static const char *
element(search *wanted, const char *place, const char *end, char **to, const char **copied)
{
    Py_ssize_t tokens;
    int labelled;
    const char *last = relay_plain(place, end, &wanted->plain, wanted->labels, &tokens, &labelled);

    if (last == NULL)
        return place;
    wanted->tokens += tokens;
    wanted->labelled |= labelled;
    *to = keep(*to, copied, place + 1, last - 1);
    return last;
}

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
            if (depth == 2 && !levels[2].object && among(levels[1].key, wanted->items)
                && (next = element(wanted, place, end, &to, &copied)) != place) {
                place = next;
                break;
            }
            /* fall through */
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
            if (depth == 1 && wanted->list.begin != NULL && wanted->list.end == NULL)
                wanted->list.end = place;
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
                if (found.escaped && depth == 1)
                    return -1; /* It may be one of those that count, spelled otherwise. */
                levels[depth].key.begin = place;
                levels[depth].key.end = found.end;
                place = next + 1;
                if (depth == 1 && (place = outermost(wanted, levels[1].key, place, end, &to, &copied)) == NULL)
                    return -1;
                break;
            }
            wanted->labelled |= begins_with(place, found.end, wanted->labels);
            if (depth == 1 && among(levels[1].key, wanted->spot)) {
                wanted->model.begin = place - 1;
                wanted->model.end = found.end + 1;
            }
            else if (found.end - place >= wanted->longest && depth >= 1 && among(levels[1].key, wanted->fields)) {
                span key = levels[depth].object ? levels[depth].key : (span){NULL, NULL};
                int counts = among(key, wanted->texts);

                if (counts || (among(key, wanted->bulk) && !wordy(place, found.end))) {
                    if (found.odd)
                        return -1;
                    if (counts)
                        wanted->tokens += tokens_of(place, found);
                    to = keep(to, &copied, place, found.end);
                }
            }
            place = next;
            break;
        default:
            place++;
        }
    }
    if (copied == begin && wanted->list.end == NULL)
        return -1;
    return keep(to, &copied, end, end) - out;
}

/* Where it is in the body; nowhere is 0 to 0. */
static Py_ssize_t
place_of(const char *at, const char *begin)
{
    return at == NULL ? 0 : at - begin;
}

/* (raw, longest, Texts, spot, known) -> None | (the body without them, their tokens, begin and end of the spot, begin and
 * end of the list, which known one that is or -1, whether there is a label) */
static PyObject *
outline(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    search wanted;
    PyObject *out, **const tables[] = {
        &wanted.fields, &wanted.texts, &wanted.bulk, &wanted.lists, &wanted.labels, &wanted.items,
    };
    const Py_ssize_t many = sizeof tables / sizeof *tables;
    const char *begin;
    Py_ssize_t size, place;
    int fits;

    memset(&wanted, 0, sizeof wanted);
    fits = count == 5 && PyBytes_Check(args[0]) && PyTuple_Check(args[2]) && PyTuple_GET_SIZE(args[2]) == many + 1
        && PyTuple_Check(PyTuple_GET_ITEM(args[2], many)) && names(args[3]) && names(args[4]);
    for (place = 0; fits && place < many; place++)
        fits = names(*tables[place] = PyTuple_GET_ITEM(args[2], place));
    if (!fits) {
        PyErr_SetString(PyExc_TypeError, "bytes, a number, Texts, and two tuples of bytes are needed");
        return NULL;
    }
    wanted.longest = PyLong_AsSsize_t(args[1]);
    if (wanted.longest == -1 && PyErr_Occurred())
        return NULL;
    if (relay_plan(&wanted.plain, PyTuple_GET_ITEM(args[2], many)) < 0)
        return NULL;
    wanted.spot = args[3];
    wanted.known = args[4];
    wanted.number = -1;
    begin = PyBytes_AS_STRING(args[0]);
    out = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(args[0]));
    if (out == NULL)
        return NULL;
    size = cut(&wanted, begin, begin + PyBytes_GET_SIZE(args[0]), PyBytes_AS_STRING(out));
    if (size < 0) {
        Py_DECREF(out);
        Py_RETURN_NONE;
    }
    if (_PyBytes_Resize(&out, size) < 0)
        return NULL;
    return Py_BuildValue(
        "NnnnnnnO", out, wanted.tokens, place_of(wanted.model.begin, begin), place_of(wanted.model.end, begin),
        place_of(wanted.list.begin, begin), place_of(wanted.list.end, begin), wanted.number,
        wanted.labelled ? Py_True : Py_False
    );
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
