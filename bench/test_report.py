#!/usr/bin/env python3
"""Tests of report.py: what is measured in which order, and how it is judged."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

import report


class Collecting(unittest.TestCase):
    def test_rounds_interleave_and_turn_around(self):
        order = []

        def subject(name):
            def measure():
                order.append(name)
                return len(order)
            return measure

        got = report.interleave({"a": subject("a"), "b": subject("b")}, rounds=2, warmup=1)
        self.assertEqual("".join(order), "abbaab")
        self.assertEqual(got, {"a": [4, 5], "b": [3, 6]})  # Without the warm-up.

    def test_a_missing_subject_is_none(self):
        def missing():
            raise report.Missing("not here")

        with contextlib.redirect_stderr(io.StringIO()):
            got = report.interleave({"ours": lambda: 1.0, "peer": missing}, rounds=3)
        self.assertEqual(got, {"ours": [1.0, 1.0, 1.0], "peer": None})

    def test_programs_print_names_and_values(self):
        code = "print('# note'); print('a 1.5'); print('b 2e3')"
        self.assertEqual(report.run_program([sys.executable, "-c", code]), {"a": 1.5, "b": 2000.0})

    def test_programs_that_fail_are_errors(self):
        with self.assertRaises(report.Missing):
            report.run_program(["/nonexistent/program"])
        for code in ("raise SystemExit(3)", "print('not a row at all')", "print('a b')"):
            with self.assertRaises(RuntimeError):
                report.run_program([sys.executable, "-c", code])


class Judging(unittest.TestCase):
    def test_more_is_better(self):
        row = report.make_row("c", "op/s", "more", [90, 110, 100], [50, 50, 60], "p", bar=2.0)
        self.assertEqual(tuple(row), report.KEYS)
        self.assertEqual((row["ours"], row["peer"], row["ratio"]), (100, 50, 2.0))
        self.assertAlmostEqual(row["spread"], 0.2)
        self.assertIs(row["pass"], True)

    def test_less_is_better(self):
        row = report.make_row("c", "ns", "less", [100], [50], "p", bar=0.9)
        self.assertEqual(row["ratio"], 0.5)
        self.assertIs(row["pass"], False)

    def test_a_missing_peer_cannot_pass(self):
        row = report.make_row("c", "ns", "less", [100], None, "p", bar=0.9)
        self.assertIsNone(row["peer"])
        self.assertIsNone(row["ratio"])
        self.assertIsNone(row["pass"])

    def test_an_absolute_bar_needs_no_peer(self):
        row = report.make_row("c", "B", "less", [256], bar=272, bar_is_absolute=True)
        self.assertIs(row["pass"], True)
        row = report.make_row("c", "op/s", "more", [256], bar=272, bar_is_absolute=True)
        self.assertIs(row["pass"], False)

    def test_nonsense_is_refused(self):
        with self.assertRaises(ValueError):
            report.make_row("c", "B", "bigger", [1])
        with self.assertRaises(ValueError):
            report.make_row("c", "B", "more", [])


class Showing(unittest.TestCase):
    def test_numbers_have_four_digits(self):
        expected = {0: "0", 1.5: "1.500", 12.345: "12.35", 123456: "123.5 k", 2.5e6: "2500 k",
                    4.16e7: "41.60 M", 1e11: "100.0 G", 0.01234: "0.01234", None: "-"}
        for value, text in expected.items():
            self.assertEqual(report.number(value), text)

    def test_finish_writes_the_rows_and_sum_up_reads_them(self):
        with tempfile.TemporaryDirectory() as directory:
            bench = report.Report("thing", directory)
            results = {"ours": [{"x": 2.0}], "peer": [{"x": 1.0}], "gone": None}
            bench.compare("good", "op/s", "more", results, "x", peer_name="p", bar=1.0)
            bench.compare("bad", "op/s", "less", results, "x", peer_name="p", bar=1.0)
            bench.compare("alone", "op/s", "more", results, "x", peer="gone", peer_name="q")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                self.assertEqual(bench.finish(), 1)
            self.assertIn("| missing |", out.getvalue())
            rows = json.loads((pathlib.Path(directory) / "thing.json").read_text())
            self.assertEqual([row["case"] for row in rows], ["good", "bad", "alone"])
            self.assertEqual([row["pass"] for row in rows], [True, False, None])
            self.assertEqual(report.sum_up(directory), 1)
            text = (pathlib.Path(directory) / "report.md").read_text()
            self.assertIn("## thing", text)
            self.assertIn("| NO", text)


if __name__ == "__main__":
    unittest.main()
