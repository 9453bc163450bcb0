"""The synthetic cohort: virtual glioma patients, some with a planted defect.

Each virtual patient is a skull-stripped head (folded grey-matter ribbon, white
matter, ventricles, deep grey nuclei, cerebellum, brainstem) with a lesion (oedema
that prefers white matter, enhancing rim that is broken in places, necrotic and
non-enhancing core) whose mass pushes its surroundings away. FLAIR, T1w, T1gd and
T2w follow from tissue parameters by the signal equations of the sequences, and then
pass through a scanner: its protocol, resolution, gain, intensity non-uniformity and
Rician noise.

The recipe follows BrainWeb (noise and non-uniformity levels; Collins et al. 1998),
TumorSim (Prastawa et al., Med. Image Anal. 13:297-311, 2009: mass effect, contrast
uptake) and SynthSeg (Billot et al., Med. Image Anal. 86:102789, 2023: images from
label maps).

Arrays are (z, y, x), images (channel, z, y, x). Index z grows upwards, y backwards
and x to the patient's left, which is what SimpleITK takes an identity direction for.
Anatomy and lesion are described in millimetres of a standard head; a grid smaller
than that head holds a smaller (and, when it has few slices, flatter) one.

`catalogue` imports the standard library only: case names and planted defects are
needed while Snakemake reads its rules. All else is made by `patient.generate`.
"""
