/* Whole chunks of plain text on their way from an upstream's connection to a client's: the compiled twin of what
 * relay/valve.py does in Python.
 *
 * A chunk comes from the event loop and goes to the outbox without a Python function on its way. Both twins do the same
 * with every input: tests/core/test_valve.py holds them against each other.
 */
#include "module.h"
#include "mould.h"
#include "text.h"
#include <structmember.h>

#define LONGEST (16 * 1024 * 1024) /* bytes of text that is kept of what passes */

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *write, *rest, *broken; /* as in relay.valve.Valve */
    PyObject *to, *form;             /* the client's transport and the mould, both or neither */
    PyObject *into;                  /* what their texts are appended to; NULL: nothing */
    PyObject *out;                   /* what stands around them in the client's form; NULL: it is the same */
    span before, after;              /* point into `out` */
    PyObject *last;                  /* what passed last; NULL: nothing since anybody decided what may */
    mould kind;                      /* points into `form` */
    Py_ssize_t text, passed;
    char open;
} Valve;

static PyObject *name_closing, *name_waiting;

/* 1 if something can be written there and nothing waits; 0 if not; -1 with an error. */
static int
flows(PyObject *to)
{
    PyObject *said = PyObject_CallMethodNoArgs(to, name_closing);
    Py_ssize_t waiting;
    int closing;

    if (said == NULL)
        return -1;
    closing = PyObject_IsTrue(said);
    Py_DECREF(said);
    if (closing)
        return closing < 0 ? -1 : 0;
    said = PyObject_CallMethodNoArgs(to, name_waiting);
    if (said == NULL)
        return -1;
    waiting = PyLong_AsSsize_t(said);
    Py_DECREF(said);
    if (waiting == -1 && PyErr_Occurred())
        return -1;
    return waiting == 0;
}

/* `data` from one place to another; all of it is not copied, nor is some of it. */
static PyObject *
between(PyObject *data, Py_ssize_t begin, Py_ssize_t end)
{
    PyObject *view, *part;

    if (begin == 0 && end == PyBytes_GET_SIZE(data)) {
        Py_INCREF(data);
        return data;
    }
    view = PyMemoryView_FromObject(data);
    if (view == NULL)
        return NULL;
    part = PySequence_GetSlice(view, begin, end);
    Py_DECREF(view);
    return part;
}

/* One event in the client's form for all texts between two places, as a chunk; NULL, and no error, if they are not sound. */
static PyObject *
recast(Valve *self, const char *place, const char *end, Py_ssize_t size)
{
    Py_ssize_t before = self->before.end - self->before.begin, after = self->after.end - self->after.begin;
    char line[2 * sizeof size + 3], *to, *begin;
    int digits = PyOS_snprintf(line, sizeof line, "%zx\r\n", (size_t)(before + size + after));
    PyObject *piece = PyBytes_FromStringAndSize(NULL, digits + before + size + after + 2);
    text found;

    if (piece == NULL)
        return NULL;
    to = PyBytes_AS_STRING(piece);
    memcpy(to, line, (size_t)digits);
    memcpy(to + digits, self->before.begin, (size_t)before);
    begin = to + digits + before;
    to = all_texts(&self->kind, place, end, begin, 1);
    memcpy(to, self->after.begin, (size_t)after);
    memcpy(to + after, "\r\n", 2);
    /* Behind them is the quote that ends a string. */
    found = text_at(begin, to + after);
    if (size == 0 || found.odd || found.end != to)
        Py_CLEAR(piece);
    return piece;
}

/* Where what did not pass begins; -1 with an error. */
static Py_ssize_t
pass(Valve *self, PyObject *data, Py_ssize_t begin)
{
    const char *start = PyBytes_AS_STRING(data);
    PyObject *to = self->to, *arguments[3] = {NULL, NULL, NULL}, *done;
    Py_ssize_t end, text = 0;
    int open;

    if (to == NULL || !self->open)
        return begin;
    end = chunks(&self->kind, start + begin, start + PyBytes_GET_SIZE(data), &text) - start;
    if (end == begin || (self->into != NULL && PyByteArray_GET_SIZE(self->into) + text > LONGEST))
        return begin;
    /* Whatever is called from here on may shut the valve. */
    Py_INCREF(to);
    open = flows(to);
    /* What is called next may change the mould. */
    if (open > 0) {
        arguments[2] = self->out == NULL ? between(data, begin, end) : recast(self, start + begin, start + end, text);
        if (arguments[2] == NULL)
            open = PyErr_Occurred() ? -1 : 0;
    }
    if (open > 0 && self->into != NULL && append(self->into, &self->kind, start + begin, start + end, text, 1) < 0) {
        Py_DECREF(arguments[2]);
        open = -1;
    }
    if (open > 0) {
        arguments[1] = to;
        done = PyObject_Vectorcall(self->write, arguments + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        if (done == NULL) {
            Py_DECREF(arguments[2]);
            open = -1;
        }
        else {
            Py_DECREF(done);
            Py_XSETREF(self->last, arguments[2]);
            self->text += text;
            self->passed += end - begin;
        }
    }
    Py_DECREF(to);
    return open < 0 ? -1 : open ? end : begin;
}

/* The error that was raised, and is raised no more. */
static PyObject *
raised(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *error, *trace;

    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return error;
#endif
}

/* Tell of the error that was raised; nothing of the rest is read then. */
static PyObject *
tell(Valve *self)
{
    PyObject *error = raised(), *done = PyObject_CallOneArg(self->broken, error);

    Py_DECREF(error);
    return done;
}

static PyObject *
valve_call(PyObject *object, PyObject *const *args, size_t flags, PyObject *names)
{
    Valve *self = (Valve *)object;
    PyObject *data, *rest, *done;
    Py_ssize_t begin;

    if (PyVectorcall_NARGS(flags) != 1 || (names != NULL && PyTuple_GET_SIZE(names) > 0)) {
        PyErr_SetString(PyExc_TypeError, "one argument is needed");
        return NULL;
    }
    if (self->rest == NULL)
        /* It is being collected as garbage. */
        Py_RETURN_NONE;
    data = args[0];
    if (!PyBytes_Check(data))
        return PyObject_CallOneArg(self->rest, data);
    begin = pass(self, data, 0);
    if (begin < 0)
        return tell(self);
    if (begin == PyBytes_GET_SIZE(data))
        Py_RETURN_NONE;
    if (begin == 0)
        return PyObject_CallOneArg(self->rest, data);
    rest = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + begin, PyBytes_GET_SIZE(data) - begin);
    if (rest == NULL)
        return NULL;
    done = PyObject_CallOneArg(self->rest, rest);
    Py_DECREF(rest);
    return done;
}

static PyObject *
valve_through(Valve *self, PyObject *const *args, Py_ssize_t count)
{
    span data;
    Py_ssize_t begin;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "two arguments are needed");
        return NULL;
    }
    begin = PyLong_AsSsize_t(args[1]);
    if (bytes_of(args[0], &data) < 0 || (begin == -1 && PyErr_Occurred()))
        return NULL;
    if (begin < 0 || begin > data.end - data.begin) {
        PyErr_SetString(PyExc_ValueError, "begin is outside of data");
        return NULL;
    }
    begin = pass(self, args[0], begin);
    return begin < 0 ? NULL : PyLong_FromSsize_t(begin);
}

static PyObject *
valve_shut(Valve *self, PyObject *nothing)
{
    Py_CLEAR(self->to);
    Py_CLEAR(self->form);
    Py_CLEAR(self->into);
    Py_CLEAR(self->out);
    Py_CLEAR(self->last);
    Py_RETURN_NONE;
}

static PyObject *
valve_let(Valve *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *into = NULL, *out = NULL;
    span before = {NULL, NULL}, after = {NULL, NULL};
    mould kind;

    if (count < 2 || count > 4) {
        PyErr_SetString(PyExc_TypeError, "two arguments are needed, or up to four");
        return NULL;
    }
    if (count > 2 && target_of(args[2], &into) < 0)
        return NULL;
    if (count > 3 && args[3] != Py_None) {
        out = args[3];
        if (!PyTuple_Check(out) || PyTuple_GET_SIZE(out) != 2) {
            PyErr_SetString(PyExc_TypeError, "two bytes are needed, or None");
            return NULL;
        }
        if (bytes_of(PyTuple_GET_ITEM(out, 0), &before) < 0 || bytes_of(PyTuple_GET_ITEM(out, 1), &after) < 0)
            return NULL;
    }
    if (args[1] != self->form) {
        if (mould_of(args[1], &kind) < 0)
            return NULL;
        Py_INCREF(args[1]);
        Py_XSETREF(self->form, args[1]);
        self->kind = kind;
    }
    Py_INCREF(args[0]);
    Py_XSETREF(self->to, args[0]);
    Py_XINCREF(into);
    Py_XSETREF(self->into, into);
    Py_XINCREF(out);
    Py_XSETREF(self->out, out);
    self->before = before;
    self->after = after;
    Py_CLEAR(self->last);
    Py_RETURN_NONE;
}

static int
valve_traverse(Valve *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->write);
    Py_VISIT(self->rest);
    Py_VISIT(self->broken);
    Py_VISIT(self->to);
    Py_VISIT(self->form);
    Py_VISIT(self->into);
    Py_VISIT(self->out);
    Py_VISIT(self->last);
    return 0;
}

static int
valve_clear(Valve *self)
{
    Py_CLEAR(self->write);
    Py_CLEAR(self->rest);
    Py_CLEAR(self->broken);
    Py_CLEAR(self->to);
    Py_CLEAR(self->form);
    Py_CLEAR(self->into);
    Py_CLEAR(self->out);
    Py_CLEAR(self->last);
    return 0;
}

static void
valve_dealloc(Valve *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    valve_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
valve_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    PyObject *write, *rest, *broken;
    Valve *self;

    if (names != NULL && PyDict_GET_SIZE(names) > 0) {
        PyErr_SetString(PyExc_TypeError, "arguments are taken by their places");
        return NULL;
    }
    if (!PyArg_UnpackTuple(args, "Valve", 3, 3, &write, &rest, &broken))
        return NULL;
    self = (Valve *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    Py_INCREF(write);
    Py_INCREF(rest);
    Py_INCREF(broken);
    self->write = write;
    self->rest = rest;
    self->broken = broken;
    self->call = valve_call;
    return (PyObject *)self;
}

static PyMethodDef valve_methods[] = {
    {"through", (PyCFunction)(void (*)(void))valve_through, METH_FASTCALL, "See relay.valve.Valve.through."},
    {"let", (PyCFunction)(void (*)(void))valve_let, METH_FASTCALL, "See relay.valve.Valve.let."},
    {"shut", (PyCFunction)valve_shut, METH_NOARGS, "See relay.valve.Valve.shut."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef valve_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Valve, call), READONLY, NULL},
    {"open", T_BOOL, offsetof(Valve, open), 0, "See relay.valve.Valve.open."},
    {"text", T_PYSSIZET, offsetof(Valve, text), READONLY, "See relay.valve.Valve.text."},
    {"passed", T_PYSSIZET, offsetof(Valve, passed), READONLY, "See relay.valve.Valve.passed."},
    {"last", T_OBJECT, offsetof(Valve, last), READONLY, "See relay.valve.Valve.last."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot valve_slots[] = {
    {Py_tp_doc, "See relay.valve.Valve."},
    {Py_tp_new, valve_new},
    {Py_tp_dealloc, valve_dealloc},
    {Py_tp_traverse, valve_traverse},
    {Py_tp_clear, valve_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_methods, valve_methods},
    {Py_tp_members, valve_members},
    {0, NULL},
};

static PyType_Spec valve_spec = {
    "relay._native.Valve", sizeof(Valve), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE, valve_slots,
};

int
relay_add_valve(PyObject *module)
{
    PyObject **const names[] = {&name_closing, &name_waiting};
    const char *const words[] = {"is_closing", "get_write_buffer_size"};

    return relay_intern(names, words, 2) < 0 ? -1 : relay_add_type(module, &valve_spec);
}
