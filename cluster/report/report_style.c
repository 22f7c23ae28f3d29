/* The page's style. Colours are those of Okabe and Ito, darkened or lightened until
 * names written in them read well on the page; dashes and markers tell lines apart
 * without colour. */
#include "cluster/report/report_chart.h"

const char *const report_style[] = {
    ":root{--bg:#fff;--ink:#1c1e21;--dim:#5c6169;--rule:#e3e5e8;--grid:#eceef0;"
    "--grey:#b9bdc3;--soft:#f5f6f7;"
    "--c0:#0062a3;--c1:#c24400;--c2:#007a59;--c3:#a63d7d;"
    "--c4:#8a6200;--c5:#1f7fb5;--c6:#5b4bb0;--c7:#4a4f57;color-scheme:light dark}\n",
    "@media (prefers-color-scheme:dark){:root{--bg:#15171a;--ink:#e4e6e9;"
    "--dim:#9aa1aa;--rule:#33373d;--grid:#25282c;--grey:#565b63;--soft:#1d2024;"
    "--c0:#6cb4f0;--c1:#ff8a50;--c2:#3fc39a;--c3:#e58fc0;--c4:#e0b040;--c5:#8ad0f5;"
    "--c6:#b0a4f5;--c7:#c4c9d0}}\n",
    "@media print{:root{--bg:#fff;--ink:#000;--dim:#444;--rule:#bbb;--grid:#e5e5e5;"
    "--grey:#aaa;--soft:#fff;--c0:#0062a3;--c1:#c24400;--c2:#007a59;--c3:#a63d7d;"
    "--c4:#8a6200;--c5:#1f7fb5;--c6:#5b4bb0;--c7:#4a4f57}"
    "nav{display:none}.tw{max-height:none!important;overflow:visible!important}"
    "section.chart,svg,tr{break-inside:avoid}}\n",
    "*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}\n",
    "body{margin:0 auto;padding:1.5rem clamp(.8rem,3vw,2.5rem) 4rem;max-width:78rem;"
    "background:var(--bg);color:var(--ink);"
    "font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\n",
    "h1{font-size:1.9rem;line-height:1.2;margin:.2rem 0 .6rem}"
    "h2{font-size:1.4rem;margin:3rem 0 .5rem;padding-top:.6rem;"
    "border-top:1px solid var(--rule)}"
    "h3{font-size:1.12rem;margin:2.4rem 0 .4rem}\n",
    "p{max-width:46rem;margin:.5rem 0}.fact{font-size:1.08rem}"
    ".meta,.note,caption,summary{color:var(--dim);font-size:.88rem}"
    ".note{max-width:60rem}a{color:var(--c0)}\n",
    "nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;list-style:none;padding:0;"
    "margin:.8rem 0;font-size:.9rem}\n",
    ".panels{display:grid;gap:1rem 1.4rem;align-items:start;"
    "grid-template-columns:repeat(auto-fit,minmax(min(100%,29rem),1fr))}"
    ".panels.small{grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}"
    "svg{width:100%;max-width:calc(1.15*var(--w));height:auto;display:block;"
    "font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;"
    "font-variant-numeric:tabular-nums}\n",
    "svg text{fill:var(--ink)}svg .pt{font-size:13px;font-weight:600}svg "
    ".pu{fill:var(--dim);font-weight:400;font-size:12px}"
    "svg .tk,svg .tk text,svg .al{fill:var(--dim);font-size:11.5px}"
    "svg .nm{font-size:12px}svg path{fill:none}"
    ".ax{stroke:var(--dim);stroke-width:1}.gr{stroke:var(--grid);stroke-width:1}"
    ".ln{stroke-width:1.9;stroke-linejoin:round;stroke-linecap:round}"
    ".rg{stroke-width:1.6;opacity:.45}.ld{stroke-width:.8;opacity:.6}"
    "svg .mk{stroke:var(--bg);stroke-width:.8}\n",
    ".sg .ln{stroke:var(--grey);stroke-width:1}.sg .rg{stroke:var(--grey)}"
    "svg .sg .mk{fill:var(--grey)}svg .sg .nm{fill:var(--dim)}"
    ".sg:hover .ln{stroke:var(--ink);stroke-width:2.2}\n",
    ".s0 path{stroke:var(--c0)}svg .s0 .mk,svg .s0 .nm{fill:var(--c0)}"
    ".s1 path{stroke:var(--c1)}svg .s1 .mk,svg .s1 .nm{fill:var(--c1)}"
    ".s2 path{stroke:var(--c2)}svg .s2 .mk,svg .s2 .nm{fill:var(--c2)}"
    ".s3 path{stroke:var(--c3)}svg .s3 .mk,svg .s3 .nm{fill:var(--c3)}"
    ".s4 path{stroke:var(--c4)}svg .s4 .mk,svg .s4 .nm{fill:var(--c4)}"
    ".s5 path{stroke:var(--c5)}svg .s5 .mk,svg .s5 .nm{fill:var(--c5)}"
    ".s6 path{stroke:var(--c6)}svg .s6 .mk,svg .s6 .nm{fill:var(--c6)}"
    ".s7 path{stroke:var(--c7)}svg .s7 .mk,svg .s7 .nm{fill:var(--c7)}\n",
    ".s1.da .ln{stroke-dasharray:7 3}.s2.da .ln{stroke-dasharray:2 3}"
    ".s3.da .ln{stroke-dasharray:9 3 2 3}.s4.da .ln{stroke-dasharray:5 5}"
    ".s5.da .ln{stroke-dasharray:12 3}.s6.da .ln{stroke-dasharray:4 2 1 2}"
    ".s7.da .ln{stroke-dasharray:1 4}"
    ".sg:hover .ln,g:hover>.ln{stroke-width:2.6}\n",
    "svg .h1,svg .h2,svg .h3,svg .h4,svg .h5,svg .h6,svg .h7,svg .h8{fill:var(--c0)}"
    ".h1{opacity:.1}.h2{opacity:.22}.h3{opacity:.34}.h4{opacity:.46}.h5{opacity:.58}"
    ".h6{opacity:.72}.h7{opacity:.86}\n",
    ".tw{overflow:auto;max-height:75vh;margin:.6rem 0;border:1px solid var(--rule);"
    "border-radius:4px;width:fit-content;max-width:100%}"
    "table{border-collapse:collapse;font-size:.82rem;font-variant-numeric:tabular-nums}"
    "caption{text-align:left;padding:.4rem .6rem}"
    "th,td{padding:.16rem .6rem;text-align:right;white-space:nowrap;"
    "border-bottom:1px solid var(--rule)}"
    "th{font-weight:600}th[scope=row],.t{text-align:left}"
    "thead th{position:sticky;top:0;background:var(--soft);z-index:2}"
    "tbody th{font-weight:500;position:sticky;left:0;background:var(--bg)}"
    "tbody tr:hover td,tbody tr:hover th{background:var(--soft)}"
    "td small{color:var(--dim)}\n",
    "details{margin:.4rem 0}summary{cursor:pointer}"
    "pre{overflow:auto;max-height:60vh;font-size:.78rem;padding:.7rem;"
    "background:var(--soft);border-radius:4px;white-space:pre-wrap;"
    "overflow-wrap:anywhere}"
    ".bad{border-left:3px solid var(--c1);padding-left:.8rem}"
    ".bad li{overflow-wrap:anywhere}\n",
    NULL};
