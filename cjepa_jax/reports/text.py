"""The style sheet of the reports."""

STYLE = """
:root {
  color-scheme: light dark; --ink: #1d2330; --soft: #5b6473; --line: #dfe3ea; --page: #f6f7f9; --card: #fff;
  --good: #12805c; --bad: #c22f4a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ef; --soft: #9aa4b5; --line: #343b48; --page: #14171d; --card: #1c2129; --good: #4fc79b; --bad: #f07a90;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 26px; margin: 0 }
h2 { font-size: 18px; margin: 0 0 4px }
section, .tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px }
section { padding: 18px 20px; margin-top: 18px }
p { margin: 4px 0 12px; max-width: 100ch }
.note, .key, figcaption, dd, small { color: var(--soft); font-size: 13px }
.note { margin-bottom: 14px }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin-top: 14px }
.tile { padding: 12px 16px }
.tile b { display: block; font-size: 24px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
td, th { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: right }
tr:last-child td { border-bottom: 0 }
th { font-weight: 600; font-size: 13px; color: var(--soft) }
td:first-child, th:first-child, .text { text-align: left }
.facts td { text-align: left; font-size: 13px; vertical-align: top; overflow-wrap: anywhere }
.facts td:first-child { color: var(--soft); width: 110px }
.good { color: var(--good) }
.bad { color: var(--bad) }
.chart { width: 100%; height: auto; display: block }
.key { margin-bottom: 6px }
.key i { display: inline-block; width: 22px; border-top: 2px solid; margin: 0 6px 4px 14px }
.shot { margin: 14px 0 0; max-width: 100% } .shot img { max-width: 100%; display: block; border-radius: 4px }
.cards { display: flex; flex-wrap: wrap; gap: 20px 18px }
.card { margin: 0; width: min-content }
.row { display: flex; align-items: center; margin-bottom: 4px }
.row b { flex: 0 0 74px; font-weight: 500; font-size: 12px; color: var(--soft); line-height: 1.2 }
.strip { display: flex; gap: 4px }
.strip img { width: var(--side); image-rendering: pixelated; border-radius: 4px; display: block }
.scale { font-size: 12px; color: var(--soft); white-space: nowrap }
.scale i { display: inline-block; width: 90px; height: 9px; border-radius: 2px; margin: 0 4px }
.scale .grey { display: inline-block; width: 10px; height: 10px; background: #808080; margin: 0 4px 0 10px }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0 }
dt { font-size: 13px; font-weight: 600 }
dd { margin: 0 }
pre { overflow: auto; font-size: 12px; line-height: 1.45 }
code { overflow-wrap: anywhere }
summary { cursor: pointer; font-weight: 600 }
"""
