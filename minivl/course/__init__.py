"""The course: assignments made from this very source, and a grader that understands mistakes. In reading order:

sources.py      a package as texts: bodies taken out, edits put in, a student's functions set among the reference's
loading.py      such a package imported from memory
tasks.py        what an assignment is: tasks, checks, mistakes, variants
inputs.py       what checks draw
asking/         how a function is asked: runs in the student's folder, in the grader's process, and with the reference
rules.py        checks that every rung of the ladder is put to
a1.py … a6.py   the six assignments, each beside its mistakes; files/ has what else a student writes in
manifest.py     all of them, by name
making.py       the student's folder; pages.py its words
answering.py    the process that runs the student's code; processes.py the side that starts, limits and ends it
judging.py      right or wrong, and where first
diagnosis.py    the likely cause
grading.py      points
results.py      for people, for Gradescope, for a spreadsheet
packing.py      what is handed in
"""
