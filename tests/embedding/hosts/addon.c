/* An addon of node that embeds Python.  run(library, "global" | "local", code).
 *
 * node loads addons with RTLD_LOCAL, and so what they are linked with; "global" makes
 * the interpreter's symbols visible to extension modules, as such addons have to.
 */
#include <Python.h>
#include <dlfcn.h>
#include <node_api.h>
#include <string.h>

static napi_value run(napi_env env, napi_callback_info info) {
    char text[3][4096];
    size_t count = 3, i;
    napi_value arguments[3];
    int failed;
    napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
    for (i = 0; i < 3; i++)
        napi_get_value_string_utf8(env, arguments[i], text[i], sizeof text[i], NULL);
    if (strcmp(text[1], "global") == 0)
        dlopen(text[0], RTLD_NOW | RTLD_GLOBAL);
    Py_Initialize();
    failed = PyRun_SimpleString(text[2]);
    if (Py_FinalizeEx() != 0 || failed)
        napi_throw_error(env, NULL, "Python failed");
    return NULL;
}

NAPI_MODULE_INIT() {
    napi_value function;
    napi_create_function(env, "run", NAPI_AUTO_LENGTH, run, NULL, &function);
    napi_set_named_property(env, exports, "run", function);
    return exports;
}
