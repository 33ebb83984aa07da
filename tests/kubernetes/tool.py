"""What tests/kubernetes asks of Python packages: JSON on standard input, JSON on standard output.

tool.py PACKAGES schemas   {"versions": [...], "objects": [...]}                   -> [problem, ...]
tool.py PACKAGES helm      {"chart": path, "cases": [{"values", "name"}, ...]}     -> [{"manifests"} or {"error"}, ...], and what lint says
tool.py PACKAGES cel       {"cases": [{"request"}, ...], "variables", "validation", "message"} -> [[allowed, message], ...]
"""

import json
import sys

sys.path.insert(0, sys.argv[1])


def schemas(asked):
    import kubernetes_validate

    problems = []
    for version in asked["versions"]:
        for thing in asked["objects"]:
            where = f"{version}: {thing.get('kind')} {thing.get('metadata', {}).get('name')}"
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except Exception as error:  # what it raises is of several kinds, and each is a problem
                problems.append(f"{where}: {type(error).__name__}: {getattr(error, 'message', error)}")
    return problems


def helm(asked):
    import helm_python

    said = []
    with helm_python.Chart.load(asked["chart"]) as chart:
        for case in asked["cases"]:
            try:
                chart.validate_schema(case["values"])
                said.append({"manifests": chart.render(case["values"], name=case["name"], namespace="nodeprep")})
            except helm_python.HelmError as error:
                said.append({"error": str(error)})
        archive = asked["chart"].endswith(".tgz")
        lint = [] if archive else helm_python.lint(asked["chart"])["messages"]
    return {"cases": said, "lint": lint, "version": helm_python.helm_sdk_version()}


def cel(asked):
    import celpy

    def value(expression, context):
        environment = celpy.Environment()
        return environment.program(environment.compile(expression)).evaluate(context)

    said = []
    for case in asked["cases"]:
        context = {"request": celpy.json_to_cel(case["request"]), "variables": celpy.celtypes.MapType()}
        for variable in asked["variables"]:
            context["variables"][celpy.celtypes.StringType(variable["name"])] = value(variable["expression"], context)
        allowed = value(asked["validation"], context)
        said.append([bool(allowed), str(value(asked["message"], context))])
    return said


json.dump({"schemas": schemas, "helm": helm, "cel": cel}[sys.argv[2]](json.load(sys.stdin)), sys.stdout)
