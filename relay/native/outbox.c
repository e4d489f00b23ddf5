/* What is written in one turn of the event loop, sent at its end: the compiled twin of what relay/outbox.py does in Python.
 *
 * Both twins do the same with every input: tests/core/test_outbox.py holds them to the same promises.
 */
#include "module.h"

typedef struct {
    PyObject_HEAD
    PyObject *call_soon, *busy;
    PyObject *waiting; /* for each connection one piece, or a list of them */
} Outbox;

static PyObject *name_write, *name_writelines, *name_closing, *name_flush;

/* 0, or -1 with an error. */
static int
done(PyObject *result)
{
    if (result == NULL)
        return -1;
    Py_DECREF(result);
    return 0;
}

static int
send(PyObject *to, PyObject *held)
{
    PyObject *closing = PyObject_CallMethodNoArgs(to, name_closing);
    int closed;

    if (closing == NULL)
        return -1;
    closed = PyObject_IsTrue(closing);
    Py_DECREF(closing);
    if (closed)
        return closed < 0 ? -1 : 0;
    return done(PyObject_CallMethodOneArg(to, PyList_Check(held) ? name_writelines : name_write, held));
}

/* Ask for `flush` at the end of this turn. */
static int
ask(Outbox *self)
{
    PyObject *flush = PyObject_GetAttr((PyObject *)self, name_flush);
    int failed;

    if (flush == NULL)
        return -1;
    failed = done(PyObject_CallOneArg(self->call_soon, flush));
    Py_DECREF(flush);
    return failed;
}

static int
hold(Outbox *self, PyObject *to, PyObject *data)
{
    PyObject *held = PyDict_GetItemWithError(self->waiting, to), *both;
    int failed;

    if (held == NULL)
        return PyErr_Occurred() ? -1 : PyDict_SetItem(self->waiting, to, data);
    if (PyList_Check(held))
        return PyList_Append(held, data);
    both = PyList_New(2);
    if (both == NULL)
        return -1;
    Py_INCREF(held);
    Py_INCREF(data);
    PyList_SET_ITEM(both, 0, held);
    PyList_SET_ITEM(both, 1, data);
    failed = PyDict_SetItem(self->waiting, to, both);
    Py_DECREF(both);
    return failed;
}

static int
put(Outbox *self, PyObject *to, PyObject *data)
{
    Py_ssize_t calls;

    if (PyDict_GET_SIZE(self->waiting) == 0) {
        calls = PyObject_Size(self->busy);
        if (calls < 0)
            return -1;
        if (calls < 2)
            return done(PyObject_CallMethodOneArg(to, name_write, data));
        if (ask(self) < 0)
            return -1;
    }
    return hold(self, to, data);
}

static int
two(Py_ssize_t count)
{
    if (count == 2)
        return 0;
    PyErr_SetString(PyExc_TypeError, "two arguments are needed");
    return -1;
}

static PyObject *
outbox_write(Outbox *self, PyObject *const *args, Py_ssize_t count)
{
    if (two(count) < 0 || put(self, args[0], args[1]) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
outbox_writelines(Outbox *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *pieces;
    Py_ssize_t calls, place;
    int failed = 0;

    if (two(count) < 0)
        return NULL;
    calls = PyDict_GET_SIZE(self->waiting) ? 2 : PyObject_Size(self->busy);
    if (calls < 0)
        return NULL;
    if (calls < 2)
        return PyObject_CallMethodOneArg(args[0], name_writelines, args[1]);
    pieces = PySequence_Fast(args[1], "a sequence of pieces is needed");
    if (pieces == NULL)
        return NULL;
    for (place = 0; place < PySequence_Fast_GET_SIZE(pieces) && !failed; place++)
        failed = put(self, args[0], PySequence_Fast_GET_ITEM(pieces, place));
    Py_DECREF(pieces);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
outbox_release(Outbox *self, PyObject *to)
{
    PyObject *held = PyDict_GetItemWithError(self->waiting, to);
    int failed;

    if (held == NULL) {
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_NONE;
    }
    Py_INCREF(held);
    failed = PyDict_DelItem(self->waiting, to) < 0 || send(to, held) < 0;
    Py_DECREF(held);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
outbox_flush(Outbox *self, PyObject *nothing)
{
    PyObject *waiting = self->waiting, *empty = PyDict_New(), *to, *held;
    Py_ssize_t place = 0;
    int failed = 0;

    if (empty == NULL)
        return NULL;
    /* Whoever is called from here on writes into the new one. */
    self->waiting = empty;
    while (!failed && PyDict_Next(waiting, &place, &to, &held))
        failed = send(to, held) < 0;
    Py_DECREF(waiting);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static int
outbox_traverse(Outbox *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->call_soon);
    Py_VISIT(self->busy);
    Py_VISIT(self->waiting);
    return 0;
}

/* What waits stays a dictionary until the end, so that nobody need ask whether it is there. */
static int
outbox_clear(Outbox *self)
{
    PyDict_Clear(self->waiting);
    return 0;
}

static void
outbox_dealloc(Outbox *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->call_soon);
    Py_XDECREF(self->busy);
    Py_XDECREF(self->waiting);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
outbox_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    PyObject *loop, *busy;
    Outbox *self;

    if (names != NULL && PyDict_GET_SIZE(names) > 0) {
        PyErr_SetString(PyExc_TypeError, "arguments are taken by their places");
        return NULL;
    }
    if (!PyArg_UnpackTuple(args, "Outbox", 2, 2, &loop, &busy))
        return NULL;
    self = (Outbox *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    Py_INCREF(busy);
    self->busy = busy;
    self->waiting = PyDict_New();
    self->call_soon = PyObject_GetAttrString(loop, "call_soon");
    if (self->waiting == NULL || self->call_soon == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef outbox_methods[] = {
    {"write", (PyCFunction)(void (*)(void))outbox_write, METH_FASTCALL, "See relay.outbox.Outbox.write."},
    {"writelines", (PyCFunction)(void (*)(void))outbox_writelines, METH_FASTCALL, "See relay.outbox.Outbox.writelines."},
    {"release", (PyCFunction)outbox_release, METH_O, "See relay.outbox.Outbox.release."},
    {"flush", (PyCFunction)outbox_flush, METH_NOARGS, "See relay.outbox.Outbox.flush."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot outbox_slots[] = {
    {Py_tp_doc, "See relay.outbox.Outbox."},
    {Py_tp_new, outbox_new},
    {Py_tp_dealloc, outbox_dealloc},
    {Py_tp_traverse, outbox_traverse},
    {Py_tp_clear, outbox_clear},
    {Py_tp_methods, outbox_methods},
    {0, NULL},
};

static PyType_Spec outbox_spec = {
    "relay._native.Outbox", sizeof(Outbox), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, outbox_slots,
};

int
relay_add_outbox(PyObject *module)
{
    PyObject **const names[] = {&name_write, &name_writelines, &name_closing, &name_flush};
    const char *const words[] = {"write", "writelines", "is_closing", "flush"};

    return relay_intern(names, words, 4) < 0 ? -1 : relay_add_type(module, &outbox_spec);
}
